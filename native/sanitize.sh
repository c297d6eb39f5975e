#!/usr/bin/env bash
# The kernels' tests under AddressSanitizer and UndefinedBehaviorSanitizer. Usage: bash native/sanitize.sh [PYTHON]
# Builds into build/sanitize and leaves the installed extension alone.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${1:-python3}
flags="-fsanitize=address,undefined -fno-sanitize-recover=undefined"

CFLAGS="$flags -fno-omit-frame-pointer -g ${CFLAGS:-}" LDFLAGS="$flags ${LDFLAGS:-}" \
    "$python" -W ignore -c 'import setuptools; setuptools.setup()' -q \
    build --build-base build/sanitize --build-lib build/sanitize/lib --force

# Plain malloc everywhere, so that the sanitizer knows the borders of numpy's, Arrow's and Python's buffers too.
# -P keeps the checkout out of the path: the sanitized copy must be the one that is imported.
# Python itself leaks by design, so leaks are not looked for here (tests/native/test_arrow_edge.py counts references).
exec env \
    LD_PRELOAD="$("${CC:-cc}" -print-file-name=libasan.so)" \
    ASAN_OPTIONS=detect_leaks=0 PYTHONMALLOC=malloc ARROW_DEFAULT_MEMORY_POOL=system \
    PYTHONPATH=build/sanitize/lib \
    "$python" -P -m pytest -p no:cacheprovider tests/native tests/test_ngrams.py tests/test_randomness.py tests/test_minhash.py tests/test_ngramlm.py tests/test_deflate.py tests/test_zipfit_profile.py tests/test_contamination.py tests/test_textrules.py tests/test_linerules.py tests/test_langid.py
