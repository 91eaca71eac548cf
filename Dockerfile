# Baton as a container image. The engine's older builder will do, hence no `RUN --mount`.
#
#   docker build -t baton .
#   docker run -d --name baton -p 127.0.0.1:8080:8080 -v baton-store:/var/lib/baton baton
#   docker cp iris.onnx baton:/tmp/ && docker exec baton baton push iris /tmp/iris.onnx
#
# Behind a proxy: --build-arg HTTPS_PROXY=..., and --build-arg EXTRA_CA="$(cat ca.pem)" if it signs with a certificate of its own.
# On a machine without an image registry, deploy/docker/base-images.sh makes the two base images first.

FROM rust:1.95-bookworm AS builder
ARG EXTRA_CA=""
RUN [ -z "$EXTRA_CA" ] || { printf '%s\n' "$EXTRA_CA" >/usr/local/share/ca-certificates/extra.crt && update-ca-certificates; }
# pip fetches the ONNX Runtime wheel.
RUN python3 -m pip --version || { apt-get update && apt-get install -y --no-install-recommends python3-pip; }
WORKDIR /src

FROM builder AS onnxruntime
ARG PIP_INDEX_URL
COPY third_party third_party
RUN third_party/fetch-onnxruntime.sh

# Text operators of ONNX models ask for this locale by name (scikit-learn's vectorizers do); the slim image has none.
FROM builder AS locale
RUN apt-get update && apt-get install -y --no-install-recommends locales && localedef -i en_US -f UTF-8 en_US.UTF-8

# The workspace reduced to its manifests and the names of its targets. This layer comes out the same until a dependency or a target
# changes, and so the long build of the dependencies below is kept. (cargo-chef does this too, at the price of building cargo-chef.)
FROM builder AS manifests
COPY . .
RUN find . -type f ! -name '*.rs' ! -name Cargo.toml ! -name Cargo.lock -delete \
    && find . -path '*/src/*.rs' ! -path '*/src/bin/*' ! -name lib.rs ! -name main.rs -delete \
    && find . -name '*.rs' -exec sh -c 'echo "fn main() { }" >"$1"' sh {} \; \
    && find . -type d -empty -delete

FROM builder AS build
COPY --from=manifests /src .
RUN cargo build --locked --profile dist -p baton
COPY . .
# The real sources may be older than the stand-ins that were just built; cargo goes by the time.
RUN find . -name target -prune -o -name '*.rs' -exec touch {} + \
    && cargo build --locked --profile dist -p baton

FROM debian:bookworm-slim
LABEL org.opencontainers.image.title="Baton" \
      org.opencontainers.image.description="Model runner whose model, contract and configuration are replaced while it serves" \
      org.opencontainers.image.licenses="Apache-2.0"
# ONNX Runtime is C++; the slim image has both libraries, because apt is too. The store belongs to group 0 as well: that is the
# group of a user id which the image doesn't know (`--user 12345`, OpenShift).
RUN dpkg -s libstdc++6 libgcc-s1 >/dev/null \
    && install -d -o 10001 -g 0 -m 0770 /var/lib/baton
COPY --from=onnxruntime /src/.cache/onnxruntime/libonnxruntime.so.1.31.1 /usr/local/lib/baton/
COPY --from=onnxruntime /src/.cache/onnxruntime/libonnxruntime.so.1.31.1.licence.txt /usr/share/doc/onnxruntime/licence.txt
COPY --from=locale /usr/lib/locale/locale-archive /usr/lib/locale/
COPY LICENSE /usr/share/doc/baton/
COPY --from=build /src/target/dist/baton /usr/local/bin/
ENV ORT_DYLIB_PATH=/usr/local/lib/baton/libonnxruntime.so.1.31.1 \
    BATON_STORE=/var/lib/baton
VOLUME /var/lib/baton
USER 10001:10001
EXPOSE 8080 8081
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s CMD ["baton", "doctor", "--live"]
ENTRYPOINT ["baton"]
# The data port is open to the container's network without a credential, and --insecure=data says so. The admin port stays on the
# container's own loopback: use `docker exec`, or give --admin-listen together with a token file.
CMD ["serve", "--listen", "0.0.0.0:8080", "--insecure=data"]
