# Two stages: one with a compiler, one with what runs. docs/operations.md#in-a-container says how to start it.
FROM node:22-bookworm AS build
WORKDIR /build
COPY . .
# The tarball, as it would come from the registry, installed with an addon built for this Node.
RUN npm ci --ignore-scripts && npm pack --pack-destination /tmp \
 && npm install --global --omit=dev --no-audit --no-fund --build-from-source /tmp/doorbell-nvme-*.tgz

FROM node:22-bookworm-slim
COPY --from=build /usr/local/lib/node_modules/doorbell-nvme /usr/local/lib/node_modules/doorbell-nvme
RUN ln -s ../lib/node_modules/doorbell-nvme/dist/src/cli/doorbell.js /usr/local/bin/doorbell \
 && install -d -o node -g node -m 0700 /run/doorbell /var/lib/doorbell
USER node
ENV XDG_RUNTIME_DIR=/run
VOLUME ["/run/doorbell", "/var/lib/doorbell"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["doorbell"]
CMD ["serve", "--state-dir", "/var/lib/doorbell", "--rpc-socket", "/run/doorbell/rpc.sock"]
