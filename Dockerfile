FROM --platform=$BUILDPLATFORM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .
ARG TARGETOS TARGETARCH VERSION
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -buildvcs=false -ldflags "-s -w ${VERSION:+-X main.release=$VERSION}" -o /walpost ./cmd/walpost

FROM gcr.io/distroless/static:nonroot
COPY --from=build /walpost /walpost
# Reachable from outside the container, for probes and scrapes.
ENV WALPOST_HTTP_ADDR=:8085
EXPOSE 8085
ENTRYPOINT ["/walpost"]
CMD ["run"]
