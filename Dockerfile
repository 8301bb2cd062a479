# Two images: `train` fits models, `serve` answers inspections. Neither has a compiler or the tests, and both run as an
# unprivileged user.
#
#   docker build --target serve -t flowgauge:serve .
#
# On x86-64, PyPI's torch brings several gigabytes of CUDA. Without a GPU, add:
#   --build-arg PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu

ARG BASE_IMAGE=python:3.11-slim

FROM ${BASE_IMAGE} AS build
# For mirrors of PyPI. pip ignores empty values.
ARG PIP_INDEX_URL=""
ARG PIP_EXTRA_INDEX_URL=""
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv --without-pip /opt/flowgauge
WORKDIR /src
# Dependencies get their own layer, so that a changed line of code does not download torch again.
COPY pyproject.toml constraints.txt README.md LICENSE ./
RUN mkdir app flows training && touch flowgauge.py app/__init__.py flows/__init__.py training/__init__.py \
    && python -m pip --python /opt/flowgauge/bin/python install -c constraints.txt ".[weights,openvino,mqtt,s3]"
COPY flowgauge.py ./
COPY app app
COPY flows flows
COPY training training
RUN python -m pip --python /opt/flowgauge/bin/python install --no-deps --force-reinstall .

FROM ${BASE_IMAGE} AS runtime
# A fresh volume takes the owner of the folder that it is mounted on.
RUN useradd --create-home --uid 10001 flowgauge && install -d -o flowgauge /data /models /runs /history
COPY --from=build /opt/flowgauge /opt/flowgauge
ENV PATH=/opt/flowgauge/bin:$PATH PYTHONUNBUFFERED=1 FLOWGAUGE_MODELS=/models FLOWGAUGE_RUNS=/runs
USER flowgauge
WORKDIR /home/flowgauge

FROM runtime AS train
ENTRYPOINT ["flowgauge", "train"]
CMD ["--help"]

FROM runtime AS serve
# On this address the server starts only with a key, see docker-compose.yml.
ENV FLOWGAUGE_HOST=0.0.0.0 FLOWGAUGE_PORT=8000 FLOWGAUGE_HISTORY=/history
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import os, ssl, urllib.request as r; \
e = os.environ; s = 's' if e.get('FLOWGAUGE_TLS_KEY') else ''; \
h = r.HTTPSHandler(context=ssl._create_unverified_context()); \
r.build_opener(r.ProxyHandler({}), h).open(f'http{s}://127.0.0.1:{e[\"FLOWGAUGE_PORT\"] or 8000}/health/live', timeout=4)"]
CMD ["flowgauge", "serve"]
