# The image of all steps, for GPUs and CPUs, built by `make image` (BuildKit). PyTorch's packages bring CUDA, cuDNN and
# NCCL with them, so that a plain Python base is enough: a CUDA base would hold them a second time. The node brings the
# driver.
ARG BASE=python:3.11.14-slim-bookworm

# The part that seldom changes, and is by far the largest: a new lock or new code does not send it again.
FROM ${BASE} AS torch
# git: components.fetch reads which version of the data a revision names. tini: see ENTRYPOINT.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git tini \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt /var/log/*
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /tmp --shell /usr/sbin/nologin pipeline
RUN python3 -m venv /opt/venv
ENV PATH=/opt/venv/bin:${PATH}
# Where torch comes from; empty for the index of all packages. PyPI has the CUDA build,
# https://download.pytorch.org/whl/cpu the one for CPUs. The image's history keeps this argument.
ARG TORCH_INDEX=
# The secret `pip`, where it is given, is a pip.conf with a package index of your own, whose [install] is for torch and
# whose [wheel] for the rest; no layer keeps it.
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    case "${TORCH_INDEX}" in *@*) \
        echo "TORCH_INDEX holds a user or a password, which the image's history would keep:" \
            "leave it out, and give the address as index-url in the [install] of --secret id=pip,src=pip.conf." >&2; \
        exit 1;; \
    esac; \
    pip install --no-cache-dir ${TORCH_INDEX:+--index-url "${TORCH_INDEX}"} torch==2.13.0

# What comes without a wheel is built here, so that its tools stay here.
FROM torch AS wheels
COPY requirements-image.txt /
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    pip wheel --no-cache-dir --no-deps --wheel-dir /wheels --requirement /requirements-image.txt

FROM torch
# Podman takes the next layer from its cache without a look at the wheels, so that the lock, which names them, has to be
# in the layer before. Source: https://github.com/containers/buildah/issues/6609
COPY requirements-image.txt /app/
RUN --mount=type=bind,from=wheels,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-index --no-deps /wheels/*.whl
# Readable for every user, whatever the umask of the checkout.
COPY --chmod=755 . /app
WORKDIR /app
# The root file system may be read-only: whatever a library keeps goes below HOME, and /tmp is the one place to write.
# USER names the user where the cluster gives it another number, which no file of users knows.
ENV PYTHONPATH=/app \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    TMPDIR=/tmp \
    USER=pipeline \
    DVC_SITE_CACHE_DIR=/tmp/dvc \
    DVC_NO_ANALYTICS=1 \
    MLFLOW_DISABLE_TELEMETRY=true \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001
ARG REVISION=unknown
ARG SOURCE=unknown
ARG VERSION=unknown
# What the runs of this image say that they were made by: there is no repository in it.
ENV DUAL_HRNET_REVISION=${REVISION}
LABEL org.opencontainers.image.title="dual-hrnet-pipeline" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.version="${VERSION}"
# The kernel keeps SIGTERM from a container's first process if that handles none, as Python does not. tini is the first,
# and hands it on.
ENTRYPOINT ["tini", "--", "python", "-m"]
