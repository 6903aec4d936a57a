# Source this on the GPU machine, in the repository's root:  . benchmarks/gpu/install.sh FOLDER [SITE]
# Installs the folder that pack.py made, for this shell and what it starts; the machine's own packages stay as they are.
_folder=${1:?folder that pack.py made}; _site=${2:-/tmp/tandem-site}
if [ ! -f "$_site/.installed" ]; then
  mkdir -p "$_site"
  python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$_site" \
    "$_folder"/*.whl && touch "$_site/.installed"
fi
tar -xzf "$_folder/tree.tgz"
export PATH="$PATH:$_site/bin"  # py-spy
export PYTHONPATH="$PWD:$_site${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
# Nothing outside can be reached: no look-ups, no statistics.
export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1 TOKENIZERS_PARALLELISM=false
