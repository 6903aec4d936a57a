# The decoder: vLLM for CUDA. Build from the root of the repository:
#   docker build -f deploy/docker/decoder.Dockerfile -t tandem-decoder:0.1.0 .
ARG BASE=vllm/vllm-openai:v0.26.0
FROM ${BASE}
LABEL org.opencontainers.image.title="Tandem decoder" org.opencontainers.image.licenses="Apache-2.0"
COPY . /src
WORKDIR /src
# vLLM and torch are the base image's; constraints would replace them, so none are given.
# hadolint ignore=DL3013
RUN python3 -m pip install --no-cache-dir '.[decoder,modelscope]' \
    && ln -sf "$(command -v python3)" /usr/local/bin/python \
    && rm -rf /src
# New volumes take their owner from here: the process must be able to write to them.
RUN install -d -o 10001 -g 10001 /models /cache
ENV PYTHONUNBUFFERED=1 NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001
WORKDIR /tmp
EXPOSE 50053
HEALTHCHECK --interval=10s --timeout=5s --start-period=600s \
    CMD ["python", "-c", "from tandem.launcher import is_ready; raise SystemExit(not is_ready('127.0.0.1:50053'))"]
ENTRYPOINT []
CMD ["python", "-m", "decoder_service"]
