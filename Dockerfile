# Zephyr's bridge, server and migration in one image: `docker build -t zephyr-realtime:local .`
# Two stages, so that the image has what runs and nothing that builds. Each package is checked
# against the hash in its lock.

FROM python:3.13-slim AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_NO_INPUT=1

WORKDIR /src

# The dependencies in a layer of their own: it stays when only our code changes.
COPY requirements-build.lock requirements-runtime.lock ./
RUN python -m venv /opt/build \
    && /opt/build/bin/pip install --require-hashes --only-binary=:all: -r requirements-build.lock \
    && python -m venv --without-pip /opt/zephyr \
    && /opt/build/bin/pip --python /opt/zephyr/bin/python install \
        --require-hashes --only-binary=:all: -r requirements-runtime.lock

RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*

COPY pyproject.toml README.md LICENSE ./
COPY protos protos
COPY bridge bridge
COPY realtime realtime
COPY zephyr zephyr
COPY bench bench
RUN /opt/build/bin/hatchling build -t wheel -d /tmp/dist \
    && /opt/build/bin/pip --python /opt/zephyr/bin/python install --no-deps --no-index /tmp/dist/*.whl

# The hot modules compiled, with a mypyc that does not go into the image.
RUN /opt/build/bin/pip --python /opt/zephyr/bin/python install --target /opt/compiler \
        --require-hashes --only-binary=:all: -r requirements-build.lock \
    && PYTHONPATH=/opt/compiler /opt/zephyr/bin/zephyr accelerator build


FROM python:3.13-slim

LABEL org.opencontainers.image.title="Zephyr" \
      org.opencontainers.image.description="A typed, durable realtime backbone: Postgres commits on gRPC streams" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"

ENV PATH=/opt/zephyr/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

RUN groupadd --gid 10001 zephyr \
    && useradd --uid 10001 --gid 10001 --no-log-init --no-create-home --home-dir /nonexistent \
        --shell /usr/sbin/nologin zephyr

COPY --from=build /opt/zephyr /opt/zephyr

USER 10001:10001
WORKDIR /tmp
EXPOSE 7400
STOPSIGNAL SIGTERM
ENTRYPOINT ["zephyr"]
CMD ["--help"]
