# The gateway: no torch, no GPU. Build from the root of the repository:
#   docker build -f deploy/docker/gateway.Dockerfile -t tandem-gateway:0.1.0 .
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
WORKDIR /src
COPY . .
RUN python -m venv /opt/tandem \
    && /opt/tandem/bin/pip install --no-cache-dir '.[gateway]' -c requirements/constraints.txt \
    && /opt/tandem/bin/python scripts/fetch_models.py

FROM ${BASE}
LABEL org.opencontainers.image.title="Tandem gateway" org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/tandem /opt/tandem
COPY --from=build /src/models/vad /opt/tandem/models/vad
ENV PATH=/opt/tandem/bin:$PATH PYTHONUNBUFFERED=1 TANDEM_GATEWAY_VAD_MODEL=/opt/tandem/models/vad
USER 10001:10001
WORKDIR /tmp
EXPOSE 50051 8899 10095
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "from tandem.launcher import is_ready; raise SystemExit(not is_ready('127.0.0.1:50051'))"]
CMD ["python", "-m", "gateway"]
