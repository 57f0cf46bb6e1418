# pastryd: one node in a container.   docker build -t pastryd .
#   docker run -v pastry-data:/data -p 4160:4160/udp pastryd --bootstrap some.host:4160
ARG PYTHON_IMAGE=python:3.11-slim

FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
# Dependencies first: they change seldom, so this layer is kept.
COPY pyproject.toml ./
RUN python3 -m venv /opt/pastryd \
    && python3 -c "import tomllib; print('\n'.join(tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies']))" > requirements.txt \
    && /opt/pastryd/bin/pip install --no-cache-dir -r requirements.txt
COPY README.md LICENSE ./
COPY pastryd ./pastryd
RUN /opt/pastryd/bin/pip wheel --no-cache-dir --no-deps -w /wheels . \
    && /opt/pastryd/bin/pip install --no-cache-dir --no-deps /wheels/*.whl \
    && /opt/pastryd/bin/python -m compileall -q /opt/pastryd \
    && /opt/pastryd/bin/pip uninstall -y -q pip

FROM ${PYTHON_IMAGE}
RUN useradd --system --uid 4160 --no-create-home --shell /usr/sbin/nologin pastry \
    && mkdir /data && chown pastry:pastry /data
COPY --from=build /opt/pastryd /opt/pastryd
ENV PATH=/opt/pastryd/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PASTRYD_DATA_DIR=/data \
    PASTRYD_LOG_FORMAT=json
USER pastry
VOLUME /data
EXPOSE 4160/udp
# The daemon hands its objects over on SIGTERM; give it the time: docker stop -t 30.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["pastry", "ping"]
ENTRYPOINT ["pastryd", "start"]
