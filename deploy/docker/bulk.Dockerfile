# Bulk jobs on Ray: the client and its job, no torch, no GPU. Build from the root of the repository:
#   docker build -f deploy/docker/bulk.Dockerfile -t tandem-bulk:0.1.0 .
# Ray's own image has what KubeRay expects of a node; its version is that of requirements/constraints.txt.
ARG BASE=rayproject/ray:2.60.0-py311

FROM ${BASE}
LABEL org.opencontainers.image.title="Tandem bulk job" org.opencontainers.image.licenses="Apache-2.0"
WORKDIR /tmp/tandem
COPY --chown=1000:100 . .
RUN pip install --no-cache-dir '.[bulk]' -c requirements/constraints.txt
USER 1000:100
WORKDIR /tmp
CMD ["tandem", "bulk", "--help"]
