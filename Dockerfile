# pgbronze as a container: slim, without root, healthy as long as `status` says so.
#   docker build -t pgbronze .
#   docker run --rm pgbronze --help
ARG PYTHON=python:3.13-slim

FROM ${PYTHON} AS build
WORKDIR /build
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM ${PYTHON}
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir "$(echo /wheels/*.whl)[duckdb,delta,metrics]" \
    && rm -r /wheels \
    && useradd --uid 10001 --create-home --home-dir /home/pgbronze pgbronze \
    && install --directory --owner pgbronze --group pgbronze /data
COPY container/healthy.py /usr/local/bin/healthy

USER 10001
# The lake, and the folder .dlt with settings.
WORKDIR /data
VOLUME /data
ENV PYTHONUNBUFFERED=1
HEALTHCHECK --interval=60s --timeout=30s --start-period=120s --retries=3 CMD ["healthy"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["pgbronze"]
CMD ["cdc", "--follow"]
