# The encoder: torch for CUDA, no vLLM. Build from the root of the repository:
#   docker build -f deploy/docker/encoder.Dockerfile -t tandem-encoder:0.1.0 .
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
WORKDIR /src
COPY . .
# torch brings the CUDA libraries; only the driver is the host's.
RUN python -m venv /opt/tandem \
    && /opt/tandem/bin/pip install --no-cache-dir torch==2.13.0 \
    && /opt/tandem/bin/pip install --no-cache-dir '.[encoder,modelscope]' -c requirements/constraints.txt \
    && /opt/tandem/bin/python scripts/fetch_models.py

FROM ${BASE}
LABEL org.opencontainers.image.title="Tandem encoder" org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/tandem /opt/tandem
COPY --from=build /src/models/speaker /opt/tandem/models/speaker
# New volumes take their owner from here: the process must be able to write to them.
RUN install -d -o 10001 -g 10001 /models /cache
ENV PATH=/opt/tandem/bin:$PATH PYTHONUNBUFFERED=1 TANDEM_ENCODER_SPEAKER_MODEL=/opt/tandem/models/speaker \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001
WORKDIR /tmp
EXPOSE 50052
HEALTHCHECK --interval=10s --timeout=5s --start-period=300s \
    CMD ["python", "-c", "from tandem.launcher import is_ready; raise SystemExit(not is_ready('127.0.0.1:50052'))"]
CMD ["python", "-m", "encoder_service"]
