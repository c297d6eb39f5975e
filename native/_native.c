/* The only file that knows Python. Each function takes buffers and capsules, checks them, releases the GIL around one
 * kernel, and returns. Arrow memory is borrowed: the tuple of capsules is held while the kernel runs, and nothing here
 * calls `release`.
 *
 * One method table per kernel, added in `module_exec`; a new kernel brings its section and its table.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "arrow_abi.h"
#include "contamination.h"
#include "codelines.h"
#include "embed.h"
#include "langid.h"
#include "linerules.h"
#include "minhash.h"
#include "ngramlm.h"
#include "ngrams.h"
#include "noise.h"
#include "refinedlines.h"
#include "simd.h"
#include "spans.h"
#include "text.h"
#include "textrules.h"
#include "textstats.h"
#include "zipfit.h"
#include "zipfit_fast.h"

/* ---------------------------------------------------------------- the Arrow edge */

typedef struct {
    PyObject *capsules; /* the pair that keeps the memory alive */
    curate_text text;
} held_text;

static int refuse_format(const struct ArrowSchema *schema) {
    const char *format = schema->format ? schema->format : "?";
    if (schema->dictionary)
        PyErr_SetString(PyExc_TypeError, "expected a string or large_string array, got a dictionary-encoded one; "
                                         "decode it first with array.dictionary_decode()");
    else if (strcmp(format, "vu") == 0)
        PyErr_SetString(PyExc_TypeError, "expected a string or large_string array, got string_view; "
                                         "cast it first with array.cast(pyarrow.large_string())");
    else
        PyErr_Format(PyExc_TypeError,
                     "expected a string or large_string array, got Arrow format '%s'; "
                     "cast it first with array.cast(pyarrow.string())",
                     format);
    return -1;
}

/* Offsets may lie when a file was damaged: each must be >= the one before, the first >= 0. */
static int check_offsets(const curate_text *text) {
    int64_t before = text_offset(text, 0);
    int64_t row = 0;
    if (before >= 0) {
        for (row = 1; row <= text->length; row++) {
            int64_t here = text_offset(text, row);
            if (here < before) break;
            before = here;
        }
        if (row > text->length) return 0;
    }
    PyErr_Format(PyExc_ValueError,
                 "expected offsets that start at 0 or more and never decrease, got a smaller one at row %lld; "
                 "the array is damaged: read it again, or check it with array.validate(full=True)",
                 (long long)row);
    return -1;
}

static int text_from_arrow(const struct ArrowSchema *schema, const struct ArrowArray *array, curate_text *text) {
    const char *format = schema->format ? schema->format : "?";
    int is_large = strcmp(format, "U") == 0;
    if (schema->dictionary || (!is_large && strcmp(format, "u") != 0)) return refuse_format(schema);
    if (array->n_buffers != 3 || array->length < 0 || array->offset < 0) {
        PyErr_SetString(PyExc_ValueError, "expected a string array with three buffers and a length of 0 or more, "
                                          "got something else; the producer of this array is at fault");
        return -1;
    }
    memset(text, 0, sizeof *text);
    text->length = array->length;
    if (array->length == 0) return 0;
    if (!array->buffers[1]) { /* offset-ok: only asks whether it is there */
        PyErr_SetString(PyExc_ValueError, "expected offsets in a string array that has rows, got none");
        return -1;
    }
    text->validity = array->null_count == 0 ? NULL : array->buffers[0]; /* offset-ok: bit_offset carries it */
    text->bit_offset = array->offset;
    if (is_large) text->offsets64 = (const int64_t *)array->buffers[1] + array->offset;
    else text->offsets32 = (const int32_t *)array->buffers[1] + array->offset;
    text->data = array->buffers[2]; /* offset-ok: the offsets point into the whole of it */
    if (check_offsets(text) < 0) return -1;
    if (text->data) return 0;
    text->data = (const uint8_t *)""; /* allowed when all texts are empty; kernels add 0 to it */
    if (text_offset(text, text->length) == 0) return 0;
    PyErr_SetString(PyExc_ValueError, "expected bytes behind the offsets of a string array, got none");
    return -1;
}

/* Take any object with __arrow_c_array__. On success the caller must text_drop(held). */
static int text_hold(PyObject *source, held_text *held) {
    held->capsules = PyObject_CallMethod(source, "__arrow_c_array__", NULL);
    if (!held->capsules) return -1;
    if (!PyTuple_Check(held->capsules) || PyTuple_Size(held->capsules) != 2) {
        PyErr_SetString(PyExc_TypeError, "expected __arrow_c_array__ to return a pair of capsules");
        goto failed;
    }
    struct ArrowSchema *schema = PyCapsule_GetPointer(PyTuple_GetItem(held->capsules, 0), "arrow_schema");
    if (!schema) goto failed;
    struct ArrowArray *array = PyCapsule_GetPointer(PyTuple_GetItem(held->capsules, 1), "arrow_array");
    if (!array) goto failed;
    if (text_from_arrow(schema, array, &held->text) < 0) goto failed;
    return 0;
failed:
    Py_CLEAR(held->capsules);
    return -1;
}

static void text_drop(held_text *held) { Py_CLEAR(held->capsules); }

/* Borrow a C-contiguous buffer of exactly `bytes` bytes, or refuse it by name. */
static int buffer_hold(PyObject *source, Py_buffer *view, int writable, int64_t bytes, const char *name) {
    int flags = PyBUF_C_CONTIGUOUS | (writable ? PyBUF_WRITABLE : 0);
    if (PyObject_GetBuffer(source, view, flags) < 0) return -1;
    if (view->len == bytes) return 0;
    PyErr_Format(PyExc_ValueError, "expected %lld bytes in '%s', got %zd", (long long)bytes, name, view->len);
    PyBuffer_Release(view);
    return -1;
}

/* Kernels read unaligned rows nowhere: 8-byte items come from numpy, which aligns them; a stranger's view may not. */
static int check_aligned(const Py_buffer *view, const char *name) {
    if ((uintptr_t)view->buf % 8 == 0) return 0;
    PyErr_Format(PyExc_ValueError, "expected '%s' aligned to 8 bytes; copy it first", name);
    return -1;
}

/* ---------------------------------------------------------------- noise */

typedef void (*noise_kernel)(const uint64_t *, int64_t, uint64_t, double *);

/* (keys uint64[n], stream, out 8-byte[n]): the shared shape of the three draws. */
static PyObject *noise_call(PyObject *args, noise_kernel to_double) {
    PyObject *keys_source, *out_source, *result = NULL;
    unsigned long long stream;
    Py_buffer keys = {0}, out = {0};
    if (!PyArg_ParseTuple(args, "OKO", &keys_source, &stream, &out_source)) return NULL;
    if (PyObject_GetBuffer(keys_source, &keys, PyBUF_C_CONTIGUOUS) < 0) goto done;
    if (buffer_hold(out_source, &out, 1, keys.len, "out") < 0) goto done;
    if (keys.len % 8 || check_aligned(&keys, "keys") < 0 || check_aligned(&out, "out") < 0) {
        if (!PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "expected 8 bytes per key");
        goto done;
    }
    int64_t n = keys.len / 8;
    Py_BEGIN_ALLOW_THREADS
    if (to_double) to_double(keys.buf, n, stream, out.buf);
    else noise_bits(keys.buf, n, stream, out.buf);
    Py_END_ALLOW_THREADS
    result = Py_NewRef(Py_None);
done:
    if (out.obj) PyBuffer_Release(&out);
    if (keys.obj) PyBuffer_Release(&keys);
    return result;
}

static PyObject *py_noise_bits(PyObject *Py_UNUSED(module), PyObject *args) { return noise_call(args, NULL); }
static PyObject *py_noise_uniform(PyObject *Py_UNUSED(module), PyObject *args) {
    return noise_call(args, noise_uniform);
}
static PyObject *py_noise_gumbel(PyObject *Py_UNUSED(module), PyObject *args) {
    return noise_call(args, noise_gumbel);
}

static PyMethodDef noise_methods[] = {
    {"noise_bits", py_noise_bits, METH_VARARGS, "noise_bits(keys, stream, out): 64 random bits per key."},
    {"noise_uniform", py_noise_uniform, METH_VARARGS, "noise_uniform(keys, stream, out): uniform on (0, 1)."},
    {"noise_gumbel", py_noise_gumbel, METH_VARARGS, "noise_gumbel(keys, stream, out): standard Gumbel."},
    {NULL, NULL, 0, NULL},
};

/* ---------------------------------------------------------------- the processor */

static PyObject *py_simd_features(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(none)) {
    return PyLong_FromLong(simd_features());
}

static PyMethodDef simd_methods[] = {
    {"simd_features", py_simd_features, METH_NOARGS, "simd_features(): bits 1 = SSE2, 2 = AVX2 and BMI, 4 = SHA."},
    {NULL, NULL, 0, NULL},
};

/* ---------------------------------------------------------------- text statistics */

static PyObject *py_text_stats(PyObject *Py_UNUSED(module), PyObject *args) {
    PyObject *source, *bytes_source, *words_source, *result = NULL;
    int simd;
    held_text held = {0};
    Py_buffer bytes = {0}, words = {0};
    if (!PyArg_ParseTuple(args, "OiOO", &source, &simd, &bytes_source, &words_source)) return NULL;
    if (text_hold(source, &held) < 0) goto done;
    if (buffer_hold(bytes_source, &bytes, 1, held.text.length * 8, "bytes") < 0) goto done;
    if (buffer_hold(words_source, &words, 1, held.text.length * 8, "words") < 0) goto done;
    if (check_aligned(&bytes, "bytes") < 0 || check_aligned(&words, "words") < 0) goto done;
    simd &= simd_features();
    Py_BEGIN_ALLOW_THREADS
    text_stats(&held.text, simd, bytes.buf, words.buf);
    Py_END_ALLOW_THREADS
    result = Py_NewRef(Py_None);
done:
    if (words.obj) PyBuffer_Release(&words);
    if (bytes.obj) PyBuffer_Release(&bytes);
    text_drop(&held);
    return result;
}

static PyObject *py_text_rules(PyObject *Py_UNUSED(module), PyObject *args) {
    PyObject *source, *counts_source, *result = NULL;
    int flags;
    long long short_chars;
    held_text held = {0};
    Py_buffer counts = {0};
    void *room = NULL;
    if (!PyArg_ParseTuple(args, "OiLO", &source, &flags, &short_chars, &counts_source)) return NULL;
    if (text_hold(source, &held) < 0) goto done;
    if (buffer_hold(counts_source, &counts, 1, held.text.length * TEXTRULES_COLUMNS * 8, "counts") < 0) goto done;
    if (check_aligned(&counts, "counts") < 0) goto done;
    room = PyMem_Malloc((size_t)textrules_room_bytes(&held.text));
    if (!room) {
        PyErr_NoMemory();
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    textrules_count(&held.text, flags, short_chars, room, counts.buf);
    Py_END_ALLOW_THREADS
    result = Py_NewRef(Py_None);
done:
    PyMem_Free(room);
    if (counts.obj) PyBuffer_Release(&counts);
    text_drop(&held);
    return result;
}

static PyMethodDef text_methods[] = {
    {"text_rules", py_text_rules, METH_VARARGS,
     "text_rules(text, flags, short_chars, counts): what the published rules count, column by column."},
    {"text_stats", py_text_stats, METH_VARARGS, "text_stats(text, simd, bytes, words): UTF-8 bytes and words per row."},
    {NULL, NULL, 0, NULL},
};

/* ---------------------------------------------------------------- spans */

static PyObject *py_spans_apply(PyObject *Py_UNUSED(module), PyObject *args) {
    PyObject *source, *texts_source, *in[3], *out_source[2], *result = NULL;
    held_text held = {0}, texts = {0};
    Py_buffer offsets = {0}, starts = {0}, stops = {0}, out_offsets = {0}, out = {0};
    if (!PyArg_ParseTuple(args, "OOOOOOO", &source, in, in + 1, in + 2, &texts_source, out_source, out_source + 1)) return NULL;
    if (text_hold(source, &held) < 0 || text_hold(texts_source, &texts) < 0) goto done;
    int64_t rows = held.text.length, n = texts.text.length, wrong;
    if (buffer_hold(in[0], &offsets, 0, (rows + 1) * 8, "offsets") < 0 || buffer_hold(in[1], &starts, 0, n * 8, "starts") < 0) goto done;
    if (buffer_hold(in[2], &stops, 0, n * 8, "stops") < 0) goto done;
    if (buffer_hold(out_source[0], &out_offsets, 1, (rows + 1) * 8, "out_offsets") < 0) goto done;
    if (PyObject_GetBuffer(out_source[1], &out, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE) < 0) goto done;
    if (check_aligned(&offsets, "offsets") < 0 || check_aligned(&starts, "starts") < 0) goto done;
    if (check_aligned(&stops, "stops") < 0 || check_aligned(&out_offsets, "out_offsets") < 0) goto done;
    span_rows spans = {offsets.buf, starts.buf, stops.buf, n};
    Py_BEGIN_ALLOW_THREADS
    wrong = spans_apply(&held.text, &spans, &texts.text, out_offsets.buf, out.buf, out.len);
    Py_END_ALLOW_THREADS
    if (wrong < 0) result = Py_NewRef(Py_None);
    else PyErr_Format(PyExc_ValueError, "expected spans that are sorted, disjoint and within their text, got others in row %lld", (long long)wrong);
done:
    if (out.obj) PyBuffer_Release(&out);
    if (out_offsets.obj) PyBuffer_Release(&out_offsets);
    if (stops.obj) PyBuffer_Release(&stops);
    if (starts.obj) PyBuffer_Release(&starts);
    if (offsets.obj) PyBuffer_Release(&offsets);
    text_drop(&texts);
    text_drop(&held);
    return result;
}

/* ---------------------------------------------------------------- rules for lines */

/* What every rule for lines needs; taken by lines_hold, given back by lines_drop. */
typedef struct {
    held_text held;
    Py_buffer counts, offsets, starts, stops;
    void *room;
    span_list spans;
} lines_call;

static int lines_hold(lines_call *call, PyObject *source, int columns, PyObject *const out[4]) {
    if (text_hold(source, &call->held) < 0) return -1;
    const curate_text *text = &call->held.text;
    int64_t most = linerules_most_spans(text);
    if (buffer_hold(out[0], &call->counts, 1, text->length * columns * 8, "counts") < 0) return -1;
    if (buffer_hold(out[1], &call->offsets, 1, (text->length + 1) * 8, "offsets") < 0) return -1;
    if (buffer_hold(out[2], &call->starts, 1, most * 8, "starts") < 0) return -1;
    if (buffer_hold(out[3], &call->stops, 1, most * 8, "stops") < 0) return -1;
    if (check_aligned(&call->counts, "counts") < 0 || check_aligned(&call->offsets, "offsets") < 0) return -1;
    if (check_aligned(&call->starts, "starts") < 0 || check_aligned(&call->stops, "stops") < 0) return -1;
    call->spans = (span_list){call->starts.buf, call->stops.buf, 0, 0};
    call->room = PyMem_Malloc((size_t)linerules_room_bytes(text));
    if (call->room) return 0;
    PyErr_NoMemory();
    return -1;
}

static void lines_drop(lines_call *call) {
    PyMem_Free(call->room);
    if (call->counts.obj) PyBuffer_Release(&call->counts);
    if (call->offsets.obj) PyBuffer_Release(&call->offsets);
    if (call->starts.obj) PyBuffer_Release(&call->starts);
    if (call->stops.obj) PyBuffer_Release(&call->stops);
    text_drop(&call->held);
}

static PyObject *py_lines_most_spans(PyObject *Py_UNUSED(module), PyObject *source) {
    held_text held = {0};
    if (text_hold(source, &held) < 0) return NULL;
    int64_t most = linerules_most_spans(&held.text);
    text_drop(&held);
    return PyLong_FromLongLong(most);
}

static PyObject *py_lines_c4(PyObject *Py_UNUSED(module), PyObject *args) {
    PyObject *source, *out[4], *result = NULL;
    long long min_words, max_word_chars;
    c4_rules rules = {0};
    lines_call call = {0};
    if (!PyArg_ParseTuple(args, "OLLiOOOO", &source, &min_words, &max_word_chars, &rules.flags, out, out + 1, out + 2, out + 3))
        return NULL;
    rules.min_words = min_words;
    rules.max_word_chars = max_word_chars;
    if (lines_hold(&call, source, C4_COLUMNS, out) < 0) goto done;
    Py_BEGIN_ALLOW_THREADS
    linerules_c4(&call.held.text, &rules, call.room, call.counts.buf, call.offsets.buf, &call.spans);
    Py_END_ALLOW_THREADS
    result = PyLong_FromLongLong(call.spans.n);
done:
    lines_drop(&call);
    return result;
}

static PyObject *py_lines_refined(PyObject *Py_UNUSED(module), PyObject *args) {
    PyObject *source, *out[4], *result = NULL;
    long long min_words, max_edit_words;
    refined_rules rules = {0};
    lines_call call = {0};
    if (!PyArg_ParseTuple(args, "OdLLiiOOOO", &source, &rules.max_uppercase, &min_words, &max_edit_words, &rules.numeric,
                          &rules.counters, out, out + 1, out + 2, out + 3))
        return NULL;
    rules.min_words = min_words;
    rules.max_edit_words = max_edit_words;
    if (lines_hold(&call, source, REFINED_COLUMNS, out) < 0) goto done;
    Py_BEGIN_ALLOW_THREADS
    linerules_refined(&call.held.text, &rules, call.room, call.counts.buf, call.offsets.buf, &call.spans);
    Py_END_ALLOW_THREADS
    result = PyLong_FromLongLong(call.spans.n);
done:
    lines_drop(&call);
    return result;
}

static PyObject *py_lines_code(PyObject *Py_UNUSED(module), PyObject *args) {
    PyObject *source, *syntax_source, *counts_source, *result = NULL;
    long long head_lines;
    held_text held = {0};
    Py_buffer syntax = {0}, counts = {0};
    if (!PyArg_ParseTuple(args, "OOLO", &source, &syntax_source, &head_lines, &counts_source)) return NULL;
    if (text_hold(source, &held) < 0) goto done;
    if (buffer_hold(syntax_source, &syntax, 0, held.text.length * 2, "syntax") < 0) goto done;
    if (buffer_hold(counts_source, &counts, 1, held.text.length * CODE_COLUMNS * 8, "counts") < 0) goto done;
    if (check_aligned(&counts, "counts") < 0 || check_aligned(&syntax, "syntax") < 0) goto done;
    Py_BEGIN_ALLOW_THREADS
    codelines_count(&held.text, syntax.buf, head_lines, counts.buf);
    Py_END_ALLOW_THREADS
    result = Py_NewRef(Py_None);
done:
    if (counts.obj) PyBuffer_Release(&counts);
    if (syntax.obj) PyBuffer_Release(&syntax);
    text_drop(&held);
    return result;
}

static PyMethodDef lines_methods[] = {
    {"lines_code", py_lines_code, METH_VARARGS, "lines_code(text, syntax, head_lines, counts): what rules for code measure."},
    {"spans_apply", py_spans_apply, METH_VARARGS,
     "spans_apply(text, offsets, starts, stops, texts, out_offsets, out): the texts with their spans carried out."},
    {"lines_most_spans", py_lines_most_spans, METH_O, "lines_most_spans(text): how many spans the rules may cut at most."},
    {"lines_c4", py_lines_c4, METH_VARARGS,
     "lines_c4(text, min_words, max_word_chars, flags, counts, offsets, starts, stops): C4's rules; spans cut."},
    {"lines_refined", py_lines_refined, METH_VARARGS,
     "lines_refined(text, max_uppercase, min_words, max_edit_words, numeric, counters, counts, offsets, starts, stops): "
     "RefinedWeb's rules; spans cut."},
    {NULL, NULL, 0, NULL},
};

/* ---------------------------------------------------------------- n-grams */

/* What every n-gram call needs; taken by ngram_hold, given back by ngram_drop. */
typedef struct {
    held_text held;
    ngram_spec spec;
    Py_buffer cache;
    ngram_scratch *scratch;
} ngram_call;

/* settings = (ngrams, buckets, hash, min_tokens, chars, regex_class, simd), as curate.ngrams writes them. */
static int ngram_settings(PyObject *settings, ngram_spec *spec) {
    long long min_tokens;
    unsigned buckets;
    if (!PyArg_ParseTuple(settings, "iIiLiii", &spec->n, &buckets, &spec->hash, &min_tokens, &spec->rules.chars,
                          &spec->rules.regex_class, &spec->rules.simd))
        return -1;
    spec->buckets = buckets;
    spec->min_tokens = min_tokens;
    spec->rules.simd &= simd_features();
    if (spec->n < 1 || spec->n > NGRAMS_MAX_ORDER || buckets < 1 || buckets > INT32_MAX || spec->hash < NGRAMS_MIX64 ||
        spec->hash > NGRAMS_SHA256) {
        PyErr_Format(PyExc_ValueError,
                     "expected ngrams in 1..8, buckets in 1..2^31-1 and hash 0 or 1, got %d, %u and %d", spec->n,
                     buckets, spec->hash);
        return -1;
    }
    return 0;
}

static int64_t longest_row(const curate_text *text) {
    int64_t longest = 0;
    for (int64_t row = 0; row < text->length; row++) {
        int64_t bytes = text_offset(text, row + 1) - text_offset(text, row);
        if (bytes > longest && !text_is_null(text, row)) longest = bytes;
    }
    return longest;
}

static int ngram_scratch_hold(ngram_call *call) {
    int64_t longest = longest_row(&call->held.text);
    if (longest > TOKENS_MAX_BYTES) {
        PyErr_Format(PyExc_ValueError, "expected documents of at most %lld bytes, got one of %lld; split it first",
                     (long long)TOKENS_MAX_BYTES, (long long)longest);
        return -1;
    }
    call->scratch = PyMem_RawMalloc(sizeof *call->scratch + (size_t)tokens_lower_bytes(longest));
    if (!call->scratch) {
        PyErr_NoMemory();
        return -1;
    }
    call->scratch->stream.lower = (uint8_t *)(call->scratch + 1);
    return 0;
}

static int ngram_hold(PyObject *source, PyObject *settings, PyObject *cache, ngram_call *call) {
    if (ngram_settings(settings, &call->spec) < 0 || text_hold(source, &call->held) < 0) return -1;
    if (call->spec.hash == NGRAMS_SHA256 && cache != Py_None) {
        if (PyObject_GetBuffer(cache, &call->cache, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE) < 0) return -1;
        if (check_aligned(&call->cache, "cache") < 0) return -1;
        call->spec.cache = call->cache.buf;
        call->spec.cache_slots = (uint64_t)call->cache.len / sizeof(ngram_cache_slot);
        if (!call->spec.cache_slots || (call->spec.cache_slots & (call->spec.cache_slots - 1))) {
            PyErr_SetString(PyExc_ValueError, "expected a cache of 24 bytes times a power of two");
            return -1;
        }
    }
    return ngram_scratch_hold(call);
}

static void ngram_drop(ngram_call *call) {
    PyMem_RawFree(call->scratch);
    if (call->cache.obj) PyBuffer_Release(&call->cache);
    text_drop(&call->held);
}

static int need_cache(const ngram_call *call) {
    if (call->spec.hash != NGRAMS_SHA256 || call->spec.cache) return 0;
    PyErr_SetString(PyExc_ValueError, "expected a cache for sha256, got None");
    return -1;
}

/* Each cell names a row of counts, or 255 for none. */
static int check_cells(const Py_buffer *cell, int64_t cells) {
    const uint8_t *names = cell->buf;
    for (Py_ssize_t row = 0; row < cell->len; row++) {
        if (names[row] < cells || names[row] == NGRAMS_SKIP_CELL) continue;
        PyErr_Format(PyExc_ValueError, "expected a cell below %lld, or 255 to leave the row out, got %d at row %zd",
                     (long long)cells, names[row], row);
        return -1;
    }
    return 0;
}

static PyObject *py_ngrams_count(PyObject *Py_UNUSED(module), PyObject *args) {
    PyObject *source, *settings, *cache, *cell_source, *counts_source, *result = NULL;
    long long cells;
    ngram_call call = {0};
    Py_buffer cell = {0}, counts = {0};
    if (!PyArg_ParseTuple(args, "OO!OOLO", &source, &PyTuple_Type, &settings, &cache, &cell_source, &cells,
                          &counts_source))
        return NULL;
    if (ngram_hold(source, settings, cache, &call) < 0 || need_cache(&call) < 0) goto done;
    if (cells < 1 || cells > NGRAMS_SKIP_CELL) {
        PyErr_Format(PyExc_ValueError, "expected 1 to 255 cells, got %lld", cells);
        goto done;
    }
    if (buffer_hold(counts_source, &counts, 1, cells * call.spec.buckets * 8, "counts") < 0) goto done;
    if (check_aligned(&counts, "counts") < 0) goto done;
    if (cell_source != Py_None) {
        if (buffer_hold(cell_source, &cell, 0, call.held.text.length, "cell") < 0) goto done;
        if (check_cells(&cell, cells) < 0) goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    ngrams_count(&call.held.text, &call.spec, cell.buf, counts.buf, call.scratch);
    Py_END_ALLOW_THREADS
    result = Py_NewRef(Py_None);
done:
    if (counts.obj) PyBuffer_Release(&counts);
    if (cell.obj) PyBuffer_Release(&cell);
    ngram_drop(&call);
    return result;
}

static PyObject *py_ngrams_score(PyObject *Py_UNUSED(module), PyObject *args) {
    PyObject *source, *settings, *cache, *ratio_source, *scores_source, *tokens_source, *result = NULL;
    long long targets;
    double *lanes = NULL;
    ngram_call call = {0};
    Py_buffer ratio = {0}, scores = {0}, tokens = {0};
    if (!PyArg_ParseTuple(args, "OO!OOLOO", &source, &PyTuple_Type, &settings, &cache, &ratio_source, &targets,
                          &scores_source, &tokens_source))
        return NULL;
    if (ngram_hold(source, settings, cache, &call) < 0 || need_cache(&call) < 0) goto done;
    if (targets < 1 || targets > 65536) {
        PyErr_Format(PyExc_ValueError, "expected 1 to 65536 targets, got %lld", targets);
        goto done;
    }
    int64_t rows = call.held.text.length;
    if (buffer_hold(ratio_source, &ratio, 0, targets * call.spec.buckets * 8, "ratio") < 0) goto done;
    if (buffer_hold(scores_source, &scores, 1, rows * targets * 8, "scores") < 0) goto done;
    if (buffer_hold(tokens_source, &tokens, 1, rows * 8, "tokens") < 0) goto done;
    if (check_aligned(&ratio, "ratio") < 0 || check_aligned(&scores, "scores") < 0) goto done;
    if (check_aligned(&tokens, "tokens") < 0) goto done;
    lanes = PyMem_RawMalloc((size_t)(call.spec.n * NGRAMS_LANES * targets) * sizeof *lanes);
    if (!lanes) {
        PyErr_NoMemory();
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    ngrams_score(&call.held.text, &call.spec, ratio.buf, targets, scores.buf, tokens.buf, lanes, call.scratch);
    Py_END_ALLOW_THREADS
    result = Py_NewRef(Py_None);
done:
    PyMem_RawFree(lanes);
    if (tokens.obj) PyBuffer_Release(&tokens);
    if (scores.obj) PyBuffer_Release(&scores);
    if (ratio.obj) PyBuffer_Release(&ratio);
    ngram_drop(&call);
    return result;
}

/* The lower-cased tokens of row 0 as a list of str, for tests and for explaining; holds the GIL. */
static PyObject *py_ngrams_tokenize(PyObject *Py_UNUSED(module), PyObject *args) {
    PyObject *source, *settings, *list = NULL, *result = NULL;
    ngram_call call = {0};
    if (!PyArg_ParseTuple(args, "OO!", &source, &PyTuple_Type, &settings)) return NULL;
    if (ngram_hold(source, settings, Py_None, &call) < 0) goto done;
    list = PyList_New(0);
    if (!list) goto done;
    if (call.held.text.length > 0 && !text_is_null(&call.held.text, 0)) {
        const curate_text *text = &call.held.text;
        token_stream *stream = &call.scratch->stream;
        const uint8_t *end = text->data + text_offset(text, text->length);
        int64_t start = text_offset(text, 0);
        stream->rules = call.spec.rules;
        tokens_open(stream, text->data + start, text_offset(text, 1) - start, end);
        while (tokens_next(stream, 0) > 0) {
            for (int64_t i = 0; i < stream->n_ends; i++) {
                const char *token = (const char *)stream->lower + stream->starts[i];
                PyObject *item = PyUnicode_DecodeUTF8(token, stream->ends[i] - stream->starts[i], "replace");
                if (!item) goto done;
                int failed = PyList_Append(list, item);
                Py_DECREF(item);
                if (failed) goto done;
            }
        }
    }
    result = Py_NewRef(list);
done:
    Py_XDECREF(list);
    ngram_drop(&call);
    return result;
}

static PyObject *py_ngrams_bucket(PyObject *Py_UNUSED(module), PyObject *args) {
    PyObject *source, *settings, *result = NULL;
    ngram_call call = {0};
    if (!PyArg_ParseTuple(args, "OO!", &source, &PyTuple_Type, &settings)) return NULL;
    if (ngram_hold(source, settings, Py_None, &call) < 0) goto done;
    const curate_text *text = &call.held.text;
    if (text->length < 1) PyErr_SetString(PyExc_ValueError, "expected at least one token, got none");
    for (int64_t row = 0; row < text->length && !PyErr_Occurred(); row++)
        if (text_is_null(text, row) || text_offset(text, row) == text_offset(text, row + 1))
            PyErr_SetString(PyExc_ValueError, "expected tokens of at least one character, got an empty one");
    if (!PyErr_Occurred()) result = PyLong_FromUnsignedLong(ngrams_bucket(text, &call.spec, call.scratch));
done:
    ngram_drop(&call);
    return result;
}

static PyMethodDef ngrams_methods[] = {
    {"ngrams_count", py_ngrams_count, METH_VARARGS,
     "ngrams_count(text, settings, cache, cell, cells, counts): add each row's n-grams to its row of counts."},
    {"ngrams_score", py_ngrams_score, METH_VARARGS,
     "ngrams_score(text, settings, cache, ratio, targets, scores, tokens): sum ratios over each row's n-grams."},
    {"ngrams_tokenize", py_ngrams_tokenize, METH_VARARGS, "ngrams_tokenize(text, settings): tokens of the first row."},
    {"ngrams_bucket", py_ngrams_bucket, METH_VARARGS, "ngrams_bucket(tokens, settings): bucket of one n-gram."},
    {NULL, NULL, 0, NULL},
};

/* ---------------------------------------------------------------- ngramlm */

/* A model is many arrays: they are held, and let go, together. */
typedef struct {
    Py_buffer views[8 + 4 * (NGRAMLM_ORDERS + 1)];
    int n;
} held_arrays;

static void arrays_drop(held_arrays *held) {
    while (held->n > 0) PyBuffer_Release(&held->views[--held->n]);
}

/* Hold one array of whole items; NULL with an exception otherwise. `least` items at least. */
static Py_buffer *array_hold(held_arrays *held, PyObject *source, int writable, int64_t item, int64_t least,
                             const char *name) {
    if (!source) return NULL;
    if (held->n >= (int)(sizeof held->views / sizeof held->views[0])) {
        PyErr_SetString(PyExc_ValueError, "expected fewer arrays in one n-gram model");
        return NULL;
    }
    Py_buffer *view = &held->views[held->n];
    if (PyObject_GetBuffer(source, view, PyBUF_C_CONTIGUOUS | (writable ? PyBUF_WRITABLE : 0)) < 0) return NULL;
    held->n++;
    int fits = view->len % item == 0 && view->len / item >= least;
    if (fits && (item == 1 || check_aligned(view, name) == 0)) return view;
    if (!PyErr_Occurred())
        PyErr_Format(PyExc_ValueError, "expected at least %lld items of %lld bytes in '%s', got %zd bytes",
                     (long long)least, (long long)item, name, view->len);
    return NULL;
}

/* Hold a hash table; its number of slots must be a power of two, at least 4 so that one slot stays empty. */
static Py_buffer *table_hold(held_arrays *held, PyObject *source, int writable, const char *name) {
    Py_buffer *view = array_hold(held, source, writable, (int64_t)sizeof(ngramlm_slot), 4, name);
    if (!view) return NULL;
    int64_t n = view->len / (int64_t)sizeof(ngramlm_slot);
    if ((n & (n - 1)) == 0) return view;
    PyErr_Format(PyExc_ValueError, "expected a power of two of slots in '%s', got %lld", name, (long long)n);
    return NULL;
}

static uint64_t table_mask(const Py_buffer *view) { return (uint64_t)view->len / sizeof(ngramlm_slot) - 1; }

/* (first, discounts float64[order + 1, 4], (contexts of 1..order), (slots of 2..order)) */
static int grams_hold(held_arrays *held, PyObject *source, ngramlm_grams *grams) {
    PyObject *first_source, *discounts_source, *contexts, *slots;
    if (!PyArg_ParseTuple(source, "OOO!O!", &first_source, &discounts_source, &PyTuple_Type, &contexts, &PyTuple_Type,
                          &slots))
        return -1;
    int order = (int)PyTuple_Size(contexts);
    if (order < 1 || order > NGRAMLM_ORDERS || PyTuple_Size(slots) != order - 1) {
        PyErr_Format(PyExc_ValueError, "expected 1 to %d levels of contexts and a table for each but the first, got %d",
                     NGRAMLM_ORDERS, order);
        return -1;
    }
    Py_buffer *first = array_hold(held, first_source, 0, 4, 2, "first");
    if (!first) return -1;
    Py_buffer *discounts = array_hold(held, discounts_source, 0, 8, 4 * (order + 1), "discounts");
    if (!discounts) return -1;
    *grams = (ngramlm_grams){.order = order, .first = first->buf, .n_symbols = first->len / 4};
    for (int k = 1; k <= order; k++) {
        ngramlm_level *level = &grams->levels[k];
        Py_buffer *sums = array_hold(held, PyTuple_GetItem(contexts, k - 1), 0, 16, 1, "contexts");
        if (!sums) return -1;
        level->contexts = sums->buf;
        level->n_contexts = sums->len / 16;
        memcpy(level->discount, (const double *)discounts->buf + 4 * k, sizeof level->discount);
        if (k == 1) continue;
        Py_buffer *table = table_hold(held, PyTuple_GetItem(slots, k - 2), 0, "slots");
        if (!table) return -1;
        level->slots = table->buf;
        level->mask = table_mask(table);
    }
    return 0;
}

/* (slots, ends, arena, words, bytes) */
static int model_hold(held_arrays *held, PyObject *source, ngramlm_model *model) {
    PyObject *slots_source, *ends_source, *arena_source, *words, *bytes;
    memset(model, 0, sizeof *model);
    if (!PyArg_ParseTuple(source, "OOOO!O!", &slots_source, &ends_source, &arena_source, &PyTuple_Type, &words,
                          &PyTuple_Type, &bytes))
        return -1;
    Py_buffer *slots = table_hold(held, slots_source, 0, "vocabulary");
    if (!slots) return -1;
    Py_buffer *ends = array_hold(held, ends_source, 0, 8, NGRAMLM_FIRST, "ends");
    if (!ends) return -1;
    Py_buffer *arena = array_hold(held, arena_source, 0, 1, 0, "arena");
    if (!arena) return -1;
    model->vocabulary = (ngramlm_vocabulary){slots->buf, table_mask(slots), ends->buf, ends->len / 8, arena->buf,
                                             arena->len};
    if (grams_hold(held, words, &model->words) < 0 || grams_hold(held, bytes, &model->bytes) < 0) return -1;
    if (model->bytes.n_symbols == NGRAMLM_BYTE_SYMBOLS) return 0;
    PyErr_Format(PyExc_ValueError, "expected %d symbols in the byte model, got %lld", NGRAMLM_BYTE_SYMBOLS,
                 (long long)model->bytes.n_symbols);
    return -1;
}

static PyObject *py_ngramlm_split(PyObject *Py_UNUSED(module), PyObject *args) {
    PyObject *data_source, *ends_source, *result = NULL;
    held_arrays held = {.n = 0};
    if (!PyArg_ParseTuple(args, "OO", &data_source, &ends_source)) return NULL;
    Py_buffer *data = array_hold(&held, data_source, 0, 1, 0, "data");
    if (!data) goto done;
    Py_buffer *ends = array_hold(&held, ends_source, 1, 8, data->len, "ends");
    if (!ends) goto done;
    result = PyLong_FromLongLong(ngramlm_split(data->buf, data->len, ends->buf));
done:
    arrays_drop(&held);
    return result;
}

/* The cursor of an intern that may have been interrupted: does what is left fit into ids? */
static int check_cursor(const curate_text *text, const int64_t *cursor, int64_t n_ids, int64_t ends_room) {
    int64_t row = cursor[0];
    if (row >= 0 && row <= text->length && cursor[1] >= 0 && cursor[2] >= 0 && cursor[3] >= NGRAMLM_FIRST &&
        cursor[3] <= ends_room) {
        int64_t bytes = text_offset(text, text->length) - text_offset(text, row) - cursor[1];
        if (bytes >= 0 && n_ids - cursor[2] >= bytes + text->length - row) return 0;
    }
    PyErr_SetString(PyExc_ValueError, "expected a cursor inside the text, and an id's room for each byte and row left");
    return -1;
}

static PyObject *py_ngramlm_intern(PyObject *Py_UNUSED(module), PyObject *args) {
    PyObject *source, *slots_source, *ends_source, *arena_source, *cursor_source, *ids_source, *result = NULL;
    held_arrays held = {.n = 0};
    held_text text = {0};
    int is_done;
    if (!PyArg_ParseTuple(args, "OOOOOO", &source, &slots_source, &ends_source, &arena_source, &cursor_source,
                          &ids_source))
        return NULL;
    if (text_hold(source, &text) < 0) goto done;
    Py_buffer *slots = table_hold(&held, slots_source, 1, "vocabulary");
    if (!slots) goto done;
    Py_buffer *ends = array_hold(&held, ends_source, 1, 8, NGRAMLM_FIRST, "ends");
    if (!ends) goto done;
    Py_buffer *arena = array_hold(&held, arena_source, 1, 1, 0, "arena");
    if (!arena) goto done;
    Py_buffer *cursor = array_hold(&held, cursor_source, 1, 8, 4, "cursor");
    if (!cursor) goto done;
    Py_buffer *ids = array_hold(&held, ids_source, 1, 4, 0, "ids");
    if (!ids || check_cursor(&text.text, cursor->buf, ids->len / 4, ends->len / 8) < 0) goto done;
    ngramlm_vocabulary v = {slots->buf, table_mask(slots), ends->buf, ends->len / 8, arena->buf, arena->len};
    Py_BEGIN_ALLOW_THREADS
    is_done = ngramlm_intern(&text.text, &v, cursor->buf, ids->buf);
    Py_END_ALLOW_THREADS
    result = PyBool_FromLong(is_done);
done:
    arrays_drop(&held);
    text_drop(&text);
    return result;
}

static PyObject *py_ngramlm_rehash(PyObject *Py_UNUSED(module), PyObject *args) {
    PyObject *from_source, *to_source, *result = NULL;
    held_arrays held = {.n = 0};
    if (!PyArg_ParseTuple(args, "OO", &from_source, &to_source)) return NULL;
    Py_buffer *from = table_hold(&held, from_source, 0, "from");
    if (!from) goto done;
    Py_buffer *to = table_hold(&held, to_source, 1, "to");
    if (!to) goto done;
    if (to->len <= from->len) {
        PyErr_SetString(PyExc_ValueError, "expected 'to' larger than 'from'");
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    ngramlm_rehash(from->buf, from->len / (int64_t)sizeof(ngramlm_slot), to->buf, table_mask(to));
    Py_END_ALLOW_THREADS
    result = Py_NewRef(Py_None);
done:
    arrays_drop(&held);
    return result;
}

static PyObject *py_ngramlm_count(PyObject *Py_UNUSED(module), PyObject *args) {
    PyObject *symbols_source, *lower_source, *slots_source, *left_source, *grams_source, *result = NULL;
    long long start, known_before;
    int64_t reached, known;
    held_arrays held = {.n = 0};
    if (!PyArg_ParseTuple(args, "OOLOLOO", &symbols_source, &lower_source, &start, &slots_source, &known_before,
                          &left_source, &grams_source))
        return NULL;
    Py_buffer *symbols = array_hold(&held, symbols_source, 0, 4, 0, "symbols");
    if (!symbols) goto done;
    int64_t n = symbols->len / 4;
    Py_buffer *lower = array_hold(&held, lower_source, 0, 4, n, "lower");
    if (!lower) goto done;
    Py_buffer *slots = table_hold(&held, slots_source, 1, "slots");
    if (!slots) goto done;
    Py_buffer *left = array_hold(&held, left_source, 1, 4, 0, "left");
    if (!left) goto done;
    Py_buffer *grams = array_hold(&held, grams_source, 1, 4, n, "grams");
    if (!grams) goto done;
    if (start < 0 || start > n || known_before < 0) {
        PyErr_SetString(PyExc_ValueError, "expected a start inside the symbols and 0 or more known grams");
        goto done;
    }
    known = known_before;
    Py_BEGIN_ALLOW_THREADS
    reached = ngramlm_count(symbols->buf, lower->buf, start, n, slots->buf, table_mask(slots), &known, left->buf,
                            left->len / 4, grams->buf);
    Py_END_ALLOW_THREADS
    if (reached >= 0) result = Py_BuildValue("LL", (long long)reached, (long long)known);
    else PyErr_SetString(PyExc_ValueError, "expected ids in 'lower' that 'left' has room for");
done:
    arrays_drop(&held);
    return result;
}

static PyObject *py_ngramlm_fold(PyObject *Py_UNUSED(module), PyObject *args) {
    PyObject *slots_source, *left_source, *contexts_source, *result = NULL;
    int64_t h[4] = {0, 0, 0, 0};
    int status;
    held_arrays held = {.n = 0};
    if (!PyArg_ParseTuple(args, "OOO", &slots_source, &left_source, &contexts_source)) return NULL;
    Py_buffer *left = NULL, *slots = table_hold(&held, slots_source, 1, "slots");
    if (!slots) goto done;
    if (left_source != Py_None && !(left = array_hold(&held, left_source, 0, 4, 0, "left"))) goto done;
    Py_buffer *contexts = array_hold(&held, contexts_source, 1, 16, 1, "contexts");
    if (!contexts) goto done;
    Py_BEGIN_ALLOW_THREADS
    status = ngramlm_fold(slots->buf, slots->len / (int64_t)sizeof(ngramlm_slot), left ? left->buf : NULL,
                          left ? left->len / 4 : 0, contexts->buf, contexts->len / 16, h);
    Py_END_ALLOW_THREADS
    if (status < 0)
        PyErr_SetString(PyExc_ValueError, "expected ids in 'slots' that 'left' and 'contexts' have room for");
    else
        result = Py_BuildValue("LLLL", (long long)h[0], (long long)h[1], (long long)h[2], (long long)h[3]);
done:
    arrays_drop(&held);
    return result;
}

static PyObject *py_ngramlm_score(PyObject *Py_UNUSED(module), PyObject *args) {
    PyObject *model_source, *source, *out_source, *result = NULL;
    ngramlm_model model;
    held_arrays held = {.n = 0};
    held_text text = {0};
    if (!PyArg_ParseTuple(args, "O!OO", &PyTuple_Type, &model_source, &source, &out_source)) return NULL;
    if (model_hold(&held, model_source, &model) < 0 || text_hold(source, &text) < 0) goto done;
    Py_buffer *out = array_hold(&held, out_source, 1, 8, text.text.length, "out");
    if (!out) goto done;
    Py_BEGIN_ALLOW_THREADS
    ngramlm_score(&model, &text.text, out->buf);
    Py_END_ALLOW_THREADS
    result = Py_NewRef(Py_None);
done:
    arrays_drop(&held);
    text_drop(&text);
    return result;
}

static PyObject *py_ngramlm_score_tokens(PyObject *Py_UNUSED(module), PyObject *args) {
    PyObject *model_source, *data_source, *ends_source, *out_source, *result = NULL;
    ngramlm_model model;
    held_arrays held = {.n = 0};
    if (!PyArg_ParseTuple(args, "O!OOO", &PyTuple_Type, &model_source, &data_source, &ends_source, &out_source))
        return NULL;
    if (model_hold(&held, model_source, &model) < 0) goto done;
    Py_buffer *data = array_hold(&held, data_source, 0, 1, 0, "data");
    if (!data) goto done;
    Py_buffer *ends = array_hold(&held, ends_source, 0, 8, 0, "ends");
    if (!ends) goto done;
    int64_t n = ends->len / 8, before = 0;
    Py_buffer *out = array_hold(&held, out_source, 1, 8, n + 1, "out");
    if (!out) goto done;
    for (int64_t i = 0; i < n; i++) {
        int64_t end = ((const int64_t *)ends->buf)[i];
        if (end <= before || end > data->len) {
            PyErr_Format(PyExc_ValueError,
                         "expected tokens of one byte or more inside 'data', got an end of %lld after %lld",
                         (long long)end, (long long)before);
            goto done;
        }
        before = end;
    }
    ngramlm_score_tokens(&model, data->buf, ends->buf, n, out->buf);
    result = Py_NewRef(Py_None);
done:
    arrays_drop(&held);
    return result;
}

static PyObject *py_ngramlm_spell(PyObject *Py_UNUSED(module), PyObject *args) {
    PyObject *model_source, *data_source, *out_source, *result = NULL;
    ngramlm_model model;
    held_arrays held = {.n = 0};
    if (!PyArg_ParseTuple(args, "O!OO", &PyTuple_Type, &model_source, &data_source, &out_source)) return NULL;
    if (model_hold(&held, model_source, &model) < 0) goto done;
    Py_buffer *data = array_hold(&held, data_source, 0, 1, 0, "data");
    if (!data) goto done;
    Py_buffer *out = array_hold(&held, out_source, 1, 8, data->len + 1, "out");
    if (!out) goto done;
    ngramlm_spell(&model, data->buf, data->len, out->buf);
    result = Py_NewRef(Py_None);
done:
    arrays_drop(&held);
    return result;
}

static PyMethodDef ngramlm_methods[] = {
    {"ngramlm_split", py_ngramlm_split, METH_VARARGS, "ngramlm_split(data, ends): cut a text into tokens."},
    {"ngramlm_intern", py_ngramlm_intern, METH_VARARGS,
     "ngramlm_intern(text, slots, ends, arena, cursor, ids): token ids; False when a table is full."},
    {"ngramlm_rehash", py_ngramlm_rehash, METH_VARARGS, "ngramlm_rehash(from, to): move a table's entries."},
    {"ngramlm_count", py_ngramlm_count, METH_VARARGS,
     "ngramlm_count(symbols, lower, start, slots, known, left, grams): count grams; returns (reached, known)."},
    {"ngramlm_fold", py_ngramlm_fold, METH_VARARGS, "ngramlm_fold(slots, left, contexts): sums per context."},
    {"ngramlm_score", py_ngramlm_score, METH_VARARGS, "ngramlm_score(model, text, out): bits per row."},
    {"ngramlm_score_tokens", py_ngramlm_score_tokens, METH_VARARGS,
     "ngramlm_score_tokens(model, data, ends, out): bits per given token and of the end."},
    {"ngramlm_spell", py_ngramlm_spell, METH_VARARGS, "ngramlm_spell(model, data, out): bits per byte of one token."},
    {NULL, NULL, 0, NULL},
};

/* ---------------------------------------------------------------- zipfit */

static int targets_are_whole(const curate_text *targets) {
    for (int64_t row = 0; row < targets->length; row++) {
        if (!text_is_null(targets, row)) continue;
        PyErr_Format(PyExc_ValueError, "expected targets without nulls, got one at row %lld", (long long)row);
        return 0;
    }
    return 1;
}

/* One allocation for all of it; the caller frees what is returned, NULL with an exception. */
static void *zipfit_scratch_hold(const curate_text *text, const curate_text *targets, zipfit_scratch *scratch) {
    int64_t longest = longest_row(text) + longest_row(targets), all = 0;
    if (targets->length) all = text_offset(targets, targets->length) - text_offset(targets, 0);
    if (longest > ZIPFIT_MAX_BYTES || longest_row(targets) + ZIPFIT_PAD > ZIPFIT_MAX_BYTES) {
        PyErr_Format(PyExc_ValueError,
                     "expected a document and a target of at most %d bytes together, got %lld; split them first",
                     (int)ZIPFIT_MAX_BYTES, (long long)longest);
        return NULL;
    }
    size_t room = (size_t)longest + ZIPFIT_PAD, align = _Alignof(zipfit_block_scratch);
    size_t bytes = sizeof(zipfit_block_scratch) + (size_t)targets->length * (sizeof(zipfit_target) + sizeof(int64_t));
    bytes += (ZIPFIT_HEADS + 2 * room) * sizeof(int32_t) + (size_t)all * ZIPFIT_PREPARED_BYTES;
    bytes += ((size_t)all + ZIPFIT_GRAMS + 1) * sizeof(uint32_t) + ((size_t)all / 64 + 1) * sizeof(uint64_t);
    bytes += ZIPFIT_FILTER_BYTES + room;
    uint8_t *block = PyMem_RawCalloc(1, align + bytes);
    if (!block) return PyErr_NoMemory();
    scratch->blocks = (zipfit_block_scratch *)(block + (align - (uintptr_t)block % align));
    scratch->targets = (zipfit_target *)(scratch->blocks + 1);
    scratch->order = (int64_t *)(scratch->targets + targets->length);
    scratch->marked = (uint64_t *)(scratch->order + targets->length);
    scratch->heads = (int32_t *)(scratch->marked + all / 64 + 1);
    scratch->links = scratch->heads + ZIPFIT_HEADS;
    scratch->inserted = scratch->links + room;
    scratch->asking = (uint32_t *)(scratch->inserted + room);
    scratch->asked = scratch->asking + ZIPFIT_GRAMS + 1;
    scratch->prepared = (uint8_t *)(scratch->asked + all);
    scratch->filter = scratch->prepared + (size_t)all * ZIPFIT_PREPARED_BYTES;
    scratch->bytes = scratch->filter + ZIPFIT_FILTER_BYTES;
    return block;
}

static PyObject *py_zipfit_measure(PyObject *Py_UNUSED(module), PyObject *args) {
    PyObject *source, *targets_source, *own_source, *joined_source, *result = NULL;
    int level;
    held_text held = {0}, targets = {0};
    Py_buffer own = {0}, joined = {0};
    zipfit_scratch scratch = {0};
    void *block = NULL;
    if (!PyArg_ParseTuple(args, "OOiiOO", &source, &targets_source, &level, &scratch.simd, &own_source, &joined_source))
        return NULL;
    scratch.simd &= simd_features();
    if (level < 1 || level > 9) {
        PyErr_Format(PyExc_ValueError, "expected a level from 1 to 9, got %d", level);
        return NULL;
    }
    if (text_hold(source, &held) < 0 || text_hold(targets_source, &targets) < 0) goto done;
    if (!targets_are_whole(&targets.text)) goto done;
    if (buffer_hold(own_source, &own, 1, held.text.length * 8, "own") < 0) goto done;
    if (buffer_hold(joined_source, &joined, 1, held.text.length * targets.text.length * 8, "joined") < 0) goto done;
    if (check_aligned(&own, "own") < 0 || check_aligned(&joined, "joined") < 0) goto done;
    block = zipfit_scratch_hold(&held.text, &targets.text, &scratch);
    if (!block) goto done;
    Py_BEGIN_ALLOW_THREADS
    zipfit_measure(&held.text, &targets.text, level, &scratch, own.buf, joined.buf);
    Py_END_ALLOW_THREADS
    result = Py_NewRef(Py_None);
done:
    PyMem_RawFree(block);
    if (joined.obj) PyBuffer_Release(&joined);
    if (own.obj) PyBuffer_Release(&own);
    text_drop(&targets);
    text_drop(&held);
    return result;
}

static PyObject *py_zipfit_profile(PyObject *Py_UNUSED(module), PyObject *args) {
    PyObject *source, *own_source, *counts_source, *result = NULL;
    int level;
    held_text held = {0};
    const curate_text none = {.length = 0};
    held_arrays arrays = {.n = 0};
    zipfit_scratch scratch = {0};
    void *block = NULL;
    if (!PyArg_ParseTuple(args, "OiiOO", &source, &level, &scratch.simd, &own_source, &counts_source)) return NULL;
    scratch.simd &= simd_features();
    if (level < 1 || level > 9) {
        PyErr_Format(PyExc_ValueError, "expected a level from 1 to 9, got %d", level);
        return NULL;
    }
    if (text_hold(source, &held) < 0) goto done;
    Py_buffer *own = array_hold(&arrays, own_source, 1, 8, held.text.length, "own");
    if (!own) goto done;
    Py_buffer *counts = array_hold(&arrays, counts_source, 1, 4, held.text.length * ZIPFIT_SYMBOLS, "counts");
    if (!counts) goto done;
    block = zipfit_scratch_hold(&held.text, &none, &scratch);
    if (!block) goto done;
    Py_BEGIN_ALLOW_THREADS
    zipfit_profile(&held.text, level, &scratch, own->buf, counts->buf);
    Py_END_ALLOW_THREADS
    result = Py_NewRef(Py_None);
done:
    PyMem_RawFree(block);
    arrays_drop(&arrays);
    text_drop(&held);
    return result;
}

static int zipfit_grams_hold(held_arrays *arrays, PyObject *source, PyObject *marks_source, zipfit_grams *grams) {
    Py_buffer *view = array_hold(arrays, source, 1, (int64_t)sizeof(zipfit_bucket), 1, "grams");
    if (!view) return -1;
    int64_t n = view->len / (Py_ssize_t)sizeof(zipfit_bucket);
    if ((n & (n - 1)) || n > (INT64_C(1) << 32)) {
        PyErr_Format(PyExc_ValueError, "expected a power of two of buckets in 'grams', at most 2^32, got %lld", (long long)n);
        return -1;
    }
    Py_buffer *marks = array_hold(arrays, marks_source, 1, 2, n, "marks");
    if (!marks) return -1;
    *grams = (zipfit_grams){view->buf, (uint32_t)(n - 1), marks->buf};
    return 0;
}

static PyObject *py_zipfit_grams_enter(PyObject *Py_UNUSED(module), PyObject *args) {
    PyObject *source, *group_source, *grams_source, *marks_source, *result = NULL;
    int size, fits = 0;
    zipfit_grams grams;
    held_text held = {0};
    held_arrays arrays = {.n = 0};
    if (!PyArg_ParseTuple(args, "OOiOO", &source, &group_source, &size, &grams_source, &marks_source)) return NULL;
    if (size != 4 && size != 8) {
        PyErr_Format(PyExc_ValueError, "expected grams of 4 or 8 bytes, got %d", size);
        return NULL;
    }
    if (text_hold(source, &held) < 0 || !targets_are_whole(&held.text)) goto done;
    Py_buffer *group = array_hold(&arrays, group_source, 0, 1, held.text.length, "group");
    if (!group || zipfit_grams_hold(&arrays, grams_source, marks_source, &grams) < 0) goto done;
    for (int64_t j = 0; j < held.text.length; j++) {
        if (((const uint8_t *)group->buf)[j] < ZIPFIT_GROUPS) continue;
        PyErr_Format(PyExc_ValueError, "expected groups below %d, got another at row %lld", ZIPFIT_GROUPS, (long long)j);
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    fits = zipfit_grams_enter(&held.text, group->buf, size, &grams);
    Py_END_ALLOW_THREADS
    result = PyBool_FromLong(fits);
done:
    arrays_drop(&arrays);
    text_drop(&held);
    return result;
}

static PyObject *py_zipfit_grams_count(PyObject *Py_UNUSED(module), PyObject *args) {
    PyObject *source, *four_source, *eight_source, *four_marks, *eight_marks, *sums_source, *result = NULL;
    unsigned int met;
    zipfit_grams four, eight;
    held_text held = {0};
    held_arrays arrays = {.n = 0};
    if (!PyArg_ParseTuple(args, "O(OO)(OO)IO", &source, &four_source, &four_marks, &eight_source, &eight_marks, &met, &sums_source)) return NULL;
    if (text_hold(source, &held) < 0) goto done;
    if (zipfit_grams_hold(&arrays, four_source, four_marks, &four) < 0 ||
        zipfit_grams_hold(&arrays, eight_source, eight_marks, &eight) < 0)
        goto done;
    Py_buffer *sums = array_hold(&arrays, sums_source, 1, 8, held.text.length * 2 * ZIPFIT_GROUPS, "sums");
    if (!sums) goto done;
    Py_BEGIN_ALLOW_THREADS
    zipfit_grams_count(&held.text, &four, &eight, met, sums->buf);
    Py_END_ALLOW_THREADS
    result = Py_NewRef(Py_None);
done:
    arrays_drop(&arrays);
    text_drop(&held);
    return result;
}

static PyObject *py_zipfit_shared(PyObject *Py_UNUSED(module), PyObject *args) {
    PyObject *counts_source, *gains_source, *mean_source, *out_source, *result = NULL;
    held_arrays arrays = {.n = 0};
    if (!PyArg_ParseTuple(args, "OOOO", &counts_source, &gains_source, &mean_source, &out_source)) return NULL;
    Py_buffer *out = array_hold(&arrays, out_source, 1, 8, 0, "out");
    if (!out) goto done;
    int64_t n = out->len / 8;
    Py_buffer *counts = array_hold(&arrays, counts_source, 0, 4, n * ZIPFIT_SYMBOLS, "counts");
    if (!counts) goto done;
    Py_buffer *gains = array_hold(&arrays, gains_source, 0, 8, ZIPFIT_SYMBOLS * ZIPFIT_TABULATED, "gains");
    if (!gains) goto done;
    Py_buffer *mean = array_hold(&arrays, mean_source, 0, 8, ZIPFIT_SYMBOLS, "mean");
    if (!mean) goto done;
    Py_BEGIN_ALLOW_THREADS
    zipfit_shared(counts->buf, n, gains->buf, mean->buf, out->buf);
    Py_END_ALLOW_THREADS
    result = Py_NewRef(Py_None);
done:
    arrays_drop(&arrays);
    return result;
}

static PyMethodDef zipfit_methods[] = {
    {"zipfit_measure", py_zipfit_measure, METH_VARARGS,
     "zipfit_measure(text, targets, level, simd, own, joined): bytes of raw DEFLATE of each row, and of it with each target."},
    {"zipfit_profile", py_zipfit_profile, METH_VARARGS,
     "zipfit_profile(text, level, simd, own, counts): bytes of raw DEFLATE of each row, and its symbols."},
    {"zipfit_grams_enter", py_zipfit_grams_enter, METH_VARARGS,
     "zipfit_grams_enter(targets, group, size, grams, marks): enter grams; False where the table is too small."},
    {"zipfit_grams_count", py_zipfit_grams_count, METH_VARARGS,
     "zipfit_grams_count(text, (four, marks), (eight, marks), met, sums): per row, size and group, the targets that have its grams."},
    {"zipfit_shared", py_zipfit_shared, METH_VARARGS,
     "zipfit_shared(counts, gains, mean, out): per row, the gain of its symbols."},
    {NULL, NULL, 0, NULL},
};

/* ---------------------------------------------------------------- minhash */

typedef struct {
    held_text held;
    held_arrays arrays;
    minhash_spec spec;
    minhash_scratch *scratch;
} minhash_call;

/* settings = (ngram, unit, hash, scheme, permutations, simd), as curate.minhash writes them. */
static int minhash_settings(PyObject *settings, minhash_spec *spec) {
    if (!PyArg_ParseTuple(settings, "iiiiii", &spec->ngram, &spec->unit, &spec->hash, &spec->scheme,
                          &spec->permutations, &spec->simd))
        return -1;
    spec->simd &= simd_features();
    if (spec->ngram < 1 || spec->ngram > MINHASH_MAX_NGRAM || spec->permutations < 1 ||
        spec->permutations > MINHASH_MAX_PERMUTATIONS || spec->unit < MINHASH_WORD || spec->unit > MINHASH_SCRIPTS ||
        spec->hash < MINHASH_MIX64 || spec->hash > MINHASH_SHA1 || spec->scheme < MINHASH_AFFINE ||
        spec->scheme > MINHASH_LEGACY) {
        PyErr_Format(PyExc_ValueError,
                     "expected ngram in 1..64, permutations in 1..2048, and known words for unit, hash and scheme, "
                     "got %d, %d, %d, %d and %d",
                     spec->ngram, spec->permutations, spec->unit, spec->hash, spec->scheme);
        return -1;
    }
    return 0;
}

static int minhash_hold(PyObject *source, PyObject *settings, minhash_call *call) {
    if (minhash_settings(settings, &call->spec) < 0 || text_hold(source, &call->held) < 0) return -1;
    int64_t longest = longest_row(&call->held.text);
    if (longest > TOKENS_MAX_BYTES) {
        PyErr_Format(PyExc_ValueError, "expected documents of at most %lld bytes, got one of %lld; split it first",
                     (long long)TOKENS_MAX_BYTES, (long long)longest);
        return -1;
    }
    /* A shingle of characters is as long as they are; words stand one space apart, as they did or nearer. */
    size_t lower = (size_t)tokens_lower_bytes(longest);
    call->scratch = PyMem_RawMalloc(sizeof *call->scratch + lower + (call->spec.hash == MINHASH_SHA1 ? lower : 0));
    if (!call->scratch) {
        PyErr_NoMemory();
        return -1;
    }
    call->scratch->stream.lower = (uint8_t *)(call->scratch + 1);
    call->scratch->joined = call->scratch->stream.lower + lower;
    return 0;
}

static void minhash_drop(minhash_call *call) {
    PyMem_RawFree(call->scratch);
    arrays_drop(&call->arrays);
    text_drop(&call->held);
}

/* The parameters of the permutations, padded to whole blocks: uint32 or, for the legacy scheme, uint64. */
static int minhash_parameters(PyObject *a_source, PyObject *b_source, minhash_call *call) {
    int legacy = call->spec.scheme == MINHASH_LEGACY;
    int64_t k = (call->spec.permutations + MINHASH_BLOCK - 1) / MINHASH_BLOCK * MINHASH_BLOCK;
    Py_buffer *a = array_hold(&call->arrays, a_source, 0, legacy ? 8 : 4, k, "a");
    if (!a) return -1;
    Py_buffer *b = array_hold(&call->arrays, b_source, 0, legacy ? 8 : 4, k, "b");
    if (!b) return -1;
    if (legacy) call->spec.a64 = a->buf, call->spec.b64 = b->buf;
    else call->spec.a32 = a->buf, call->spec.b32 = b->buf;
    return 0;
}

static PyObject *py_minhash_signatures(PyObject *Py_UNUSED(module), PyObject *args) {
    PyObject *source, *settings, *a, *b, *signatures_source, *shingles_source, *sums_source, *result = NULL;
    minhash_call call = {.scratch = NULL};
    if (!PyArg_ParseTuple(args, "OO!OOOOO", &source, &PyTuple_Type, &settings, &a, &b, &signatures_source,
                          &shingles_source, &sums_source))
        return NULL;
    if (minhash_hold(source, settings, &call) < 0 || minhash_parameters(a, b, &call) < 0) goto done;
    int64_t rows = call.held.text.length;
    Py_buffer *signatures =
        array_hold(&call.arrays, signatures_source, 1, 4, rows * call.spec.permutations, "signatures");
    if (!signatures) goto done;
    Py_buffer *shingles = array_hold(&call.arrays, shingles_source, 1, 8, rows, "shingles");
    if (!shingles) goto done;
    Py_buffer *sums = array_hold(&call.arrays, sums_source, 1, 8, rows, "sums");
    if (!sums) goto done;
    Py_BEGIN_ALLOW_THREADS
    minhash_signatures(&call.held.text, &call.spec, signatures->buf, shingles->buf, sums->buf, call.scratch);
    Py_END_ALLOW_THREADS
    result = Py_NewRef(Py_None);
done:
    minhash_drop(&call);
    return result;
}

static PyObject *py_minhash_sets(PyObject *Py_UNUSED(module), PyObject *args) {
    PyObject *source, *settings, *values_source, *ends_source, *result = NULL;
    minhash_call call = {.scratch = NULL};
    int64_t written;
    if (!PyArg_ParseTuple(args, "OO!OO", &source, &PyTuple_Type, &settings, &values_source, &ends_source)) return NULL;
    if (minhash_hold(source, settings, &call) < 0) goto done;
    int64_t rows = call.held.text.length;
    int64_t bytes = text_offset(&call.held.text, rows) - text_offset(&call.held.text, 0);
    Py_buffer *values = array_hold(&call.arrays, values_source, 1, 8, bytes + rows, "values");
    if (!values) goto done;
    Py_buffer *ends = array_hold(&call.arrays, ends_source, 1, 8, rows, "ends");
    if (!ends) goto done;
    Py_BEGIN_ALLOW_THREADS
    written = minhash_sets(&call.held.text, &call.spec, values->buf, ends->buf, call.scratch);
    Py_END_ALLOW_THREADS
    result = PyLong_FromLongLong(written);
done:
    minhash_drop(&call);
    return result;
}

static PyObject *py_minhash_unspaced(PyObject *Py_UNUSED(module), PyObject *args) {
    PyObject *source, *shares_source, *result = NULL;
    held_text held = {0};
    held_arrays arrays = {0};
    if (!PyArg_ParseTuple(args, "OO", &source, &shares_source)) return NULL;
    if (text_hold(source, &held) < 0) goto done;
    Py_buffer *shares = array_hold(&arrays, shares_source, 1, 8, held.text.length, "shares");
    if (!shares) goto done;
    Py_BEGIN_ALLOW_THREADS
    minhash_unspaced(&held.text, shares->buf);
    Py_END_ALLOW_THREADS
    result = Py_NewRef(Py_None);
done:
    arrays_drop(&arrays);
    text_drop(&held);
    return result;
}

static PyObject *py_minhash_bands(PyObject *Py_UNUSED(module), PyObject *args) {
    PyObject *signatures_source, *keys_source, *result = NULL;
    int permutations, bands, per_band;
    held_arrays held = {.n = 0};
    if (!PyArg_ParseTuple(args, "OiiiO", &signatures_source, &permutations, &bands, &per_band, &keys_source))
        return NULL;
    if (permutations < 1 || permutations > MINHASH_MAX_PERMUTATIONS || bands < 1 || per_band < 1 ||
        bands > permutations / per_band) {
        PyErr_Format(PyExc_ValueError, "expected bands * rows of at most %d permutations, got %d * %d", permutations,
                     bands, per_band);
        return NULL;
    }
    Py_buffer *signatures = array_hold(&held, signatures_source, 0, 4, 0, "signatures");
    if (!signatures) goto done;
    int64_t rows = signatures->len / 4 / permutations;
    Py_buffer *keys = array_hold(&held, keys_source, 1, 8, rows * bands, "keys");
    if (!keys) goto done;
    Py_BEGIN_ALLOW_THREADS
    minhash_bands(signatures->buf, rows, permutations, bands, per_band, keys->buf);
    Py_END_ALLOW_THREADS
    result = Py_NewRef(Py_None);
done:
    arrays_drop(&held);
    return result;
}

/* starts[0 .. sets] never decrease and lie in 0 .. values. */
static int check_starts(const Py_buffer *starts, int64_t values) {
    int64_t before = 0;
    for (int64_t i = 0; i < starts->len / 8; i++) {
        int64_t start = ((const int64_t *)starts->buf)[i];
        if (start < before || start > values) {
            PyErr_Format(PyExc_ValueError, "expected starts that never decrease, inside 'values', got %lld at %lld",
                         (long long)start, (long long)i);
            return -1;
        }
        before = start;
    }
    return 0;
}

/* Every name of a set or member is in 0 .. count - 1. */
static int check_names(const Py_buffer *names, int64_t count) {
    const int64_t *name = names->buf;
    for (int64_t i = 0; i < names->len / 8; i++) {
        if (name[i] >= 0 && name[i] < count) continue;
        PyErr_Format(PyExc_ValueError, "expected numbers below %lld, got %lld at %lld", (long long)count,
                     (long long)name[i], (long long)i);
        return -1;
    }
    return 0;
}

static PyObject *py_minhash_shared(PyObject *Py_UNUSED(module), PyObject *args) {
    PyObject *values_source, *starts_source, *left_source, *right_source, *shared_source, *result = NULL;
    held_arrays held = {.n = 0};
    if (!PyArg_ParseTuple(args, "OOOOO", &values_source, &starts_source, &left_source, &right_source, &shared_source))
        return NULL;
    Py_buffer *values = array_hold(&held, values_source, 0, 8, 0, "values");
    if (!values) goto done;
    Py_buffer *starts = array_hold(&held, starts_source, 0, 8, 1, "starts");
    if (!starts) goto done;
    Py_buffer *left = array_hold(&held, left_source, 0, 8, 0, "left");
    if (!left) goto done;
    Py_buffer *right = array_hold(&held, right_source, 0, 8, left->len / 8, "right");
    if (!right) goto done;
    Py_buffer *shared = array_hold(&held, shared_source, 1, 8, left->len / 8, "shared");
    if (!shared) goto done;
    int64_t sets = starts->len / 8 - 1;
    if (check_starts(starts, values->len / 8) < 0) goto done;
    if (check_names(left, sets) < 0 || check_names(right, sets) < 0) goto done;
    Py_BEGIN_ALLOW_THREADS
    minhash_shared(values->buf, starts->buf, left->buf, right->buf, left->len / 8, shared->buf);
    Py_END_ALLOW_THREADS
    result = Py_NewRef(Py_None);
done:
    arrays_drop(&held);
    return result;
}

static PyObject *py_minhash_join(PyObject *Py_UNUSED(module), PyObject *args) {
    PyObject *parent_source, *left_source, *right_source, *result = NULL;
    held_arrays held = {.n = 0};
    if (!PyArg_ParseTuple(args, "OOO", &parent_source, &left_source, &right_source)) return NULL;
    Py_buffer *parent = array_hold(&held, parent_source, 1, 8, 0, "parent");
    if (!parent) goto done;
    Py_buffer *left = array_hold(&held, left_source, 0, 8, 0, "left");
    if (!left) goto done;
    Py_buffer *right = array_hold(&held, right_source, 0, 8, left->len / 8, "right");
    if (!right) goto done;
    int64_t members = parent->len / 8;
    for (int64_t i = 0; i < members; i++) {
        int64_t above = ((const int64_t *)parent->buf)[i];
        if (above < 0 || above > i) {
            PyErr_Format(PyExc_ValueError, "expected a parent of %lld from 0 to itself, got %lld", (long long)i,
                         (long long)above);
            goto done;
        }
    }
    if (check_names(left, members) < 0 || check_names(right, members) < 0) goto done;
    Py_BEGIN_ALLOW_THREADS
    minhash_join(parent->buf, left->buf, right->buf, left->len / 8);
    Py_END_ALLOW_THREADS
    result = Py_NewRef(Py_None);
done:
    arrays_drop(&held);
    return result;
}

static PyMethodDef minhash_methods[] = {
    {"minhash_signatures", py_minhash_signatures, METH_VARARGS,
     "minhash_signatures(text, settings, a, b, signatures, shingles, sums): a signature per row."},
    {"minhash_sets", py_minhash_sets, METH_VARARGS,
     "minhash_sets(text, settings, values, ends): each row's different shingles, ascending; returns how many."},
    {"minhash_unspaced", py_minhash_unspaced, METH_VARARGS,
     "minhash_unspaced(text, shares): each row's share of characters of unspaced scripts, 0 where it is half or less."},
    {"minhash_bands", py_minhash_bands, METH_VARARGS,
     "minhash_bands(signatures, permutations, bands, rows, keys): a hash of each band of each signature."},
    {"minhash_shared", py_minhash_shared, METH_VARARGS,
     "minhash_shared(values, starts, left, right, shared): how many values pairs of sets have in common."},
    {"minhash_join", py_minhash_join, METH_VARARGS, "minhash_join(parent, left, right): union-find."},
    {NULL, NULL, 0, NULL},
};

/* ---------------------------------------------------------------- embed */

static PyObject *py_embed_project(PyObject *Py_UNUSED(module), PyObject *args) {
    PyObject *values_source, *starts_source, *sums_source, *result = NULL;
    int dim;
    held_arrays held = {.n = 0};
    if (!PyArg_ParseTuple(args, "OOiO", &values_source, &starts_source, &dim, &sums_source)) return NULL;
    if (dim < 1 || dim > EMBED_MAX_DIM) {
        PyErr_Format(PyExc_ValueError, "expected 1 to %d dimensions, got %d", EMBED_MAX_DIM, dim);
        return NULL;
    }
    Py_buffer *values = array_hold(&held, values_source, 0, 8, 0, "values");
    if (!values) goto done;
    Py_buffer *starts = array_hold(&held, starts_source, 0, 8, 1, "starts");
    if (!starts) goto done;
    int64_t rows = starts->len / 8 - 1;
    Py_buffer *sums = array_hold(&held, sums_source, 1, 4, rows * dim, "sums");
    if (!sums || check_starts(starts, values->len / 8) < 0) goto done;
    Py_BEGIN_ALLOW_THREADS
    embed_project(values->buf, starts->buf, rows, dim, sums->buf);
    Py_END_ALLOW_THREADS
    result = Py_NewRef(Py_None);
done:
    arrays_drop(&held);
    return result;
}

static PyMethodDef embed_methods[] = {
    {"embed_project", py_embed_project, METH_VARARGS,
     "embed_project(values, starts, dim, sums): a random projection of each set of hashes, added to its sums."},
    {NULL, NULL, 0, NULL},
};

/* ---------------------------------------------------------------- langid */

/* Each value of `view` is a place in something of `room` items. */
static int check_places(const Py_buffer *view, int64_t room, const char *name) {
    const int32_t *values = view->buf;
    for (int64_t i = 0; i < view->len / 4; i++)
        if (values[i] < 0 || values[i] >= room) {
            PyErr_Format(PyExc_ValueError, "expected items of '%s' from 0 to %lld, got %d at %lld", name,
                         (long long)room - 1, (int)values[i], (long long)i);
            return -1;
        }
    return 0;
}

/* (next, rows, outputs, weights, unit, prior, first): checked whole, since a state that lies leads out of the tables. */
static int langid_hold(held_arrays *held, PyObject *source, langid_model *model) {
    PyObject *next_source, *rows_source, *outputs_source, *weights_source, *prior_source, *first_source;
    memset(model, 0, sizeof *model);
    if (!PyArg_ParseTuple(source, "OOOOdOO", &next_source, &rows_source, &outputs_source, &weights_source, &model->unit,
                          &prior_source, &first_source))
        return -1;
    Py_buffer *rows = array_hold(held, rows_source, 0, 4, 1, "rows");
    if (!rows) return -1;
    model->states = rows->len / 4;
    Py_buffer *outputs = array_hold(held, outputs_source, 0, 4, model->states, "outputs");
    if (!outputs) return -1;
    Py_buffer *prior = array_hold(held, prior_source, 0, 4, 1, "prior");
    if (!prior) return -1;
    model->classes = prior->len / 4;
    Py_buffer *first = array_hold(held, first_source, 0, 4, model->classes, "first");
    if (!first) return -1;
    Py_buffer *weights = array_hold(held, weights_source, 0, 2, 0, "weights");
    if (!weights) return -1;
    model->features = weights->len / 2 / model->classes;
    Py_buffer *next = array_hold(held, next_source, 0, 4, 256, "next");
    if (!next) return -1;
    if (check_places(rows, next->len / 1024, "rows") < 0 || check_places(next, model->states, "next") < 0 ||
        check_places(outputs, model->features + 1, "outputs") < 0 || check_places(first, model->classes, "first") < 0)
        return -1;
    model->next = next->buf;
    model->rows = rows->buf;
    model->outputs = outputs->buf;
    model->first = first->buf;
    model->weights = weights->buf;
    model->prior = prior->buf;
    for (int64_t c = 0; c < model->classes; c++)
        if (model->first[c] > c) {
            PyErr_SetString(PyExc_ValueError, "expected 'first' to name no class behind its own");
            return -1;
        }
    return 0;
}

/* A model that was checked once, with the arrays that it points into. */
typedef struct {
    held_arrays held;
    langid_model model;
} kept_langid;

static const char LANGID_MODEL[] = "curate.langid_model";

static void langid_free(PyObject *capsule) {
    kept_langid *kept = PyCapsule_GetPointer(capsule, LANGID_MODEL);
    if (!kept) return;
    arrays_drop(&kept->held);
    PyMem_Free(kept);
}

static PyObject *py_langid_model(PyObject *Py_UNUSED(module), PyObject *args) {
    kept_langid *kept = PyMem_Calloc(1, sizeof *kept);
    if (!kept) return PyErr_NoMemory();
    PyObject *result = NULL;
    if (langid_hold(&kept->held, args, &kept->model) == 0) result = PyCapsule_New(kept, LANGID_MODEL, langid_free);
    if (!result) {
        arrays_drop(&kept->held);
        PyMem_Free(kept);
    }
    return result;
}

/* (text, model, simd, labels, shares) */
static PyObject *py_langid_classify(PyObject *Py_UNUSED(module), PyObject *args) {
    PyObject *source, *capsule, *labels_source, *shares_source, *result = NULL;
    int simd;
    held_arrays held = {.n = 0};
    held_text text = {0};
    langid_room room = {0};
    if (!PyArg_ParseTuple(args, "OOiOO", &source, &capsule, &simd, &labels_source, &shares_source)) return NULL;
    const kept_langid *kept = PyCapsule_GetPointer(capsule, LANGID_MODEL);
    if (!kept) return NULL;
    const langid_model *model = &kept->model;
    if (text_hold(source, &text) < 0) goto done;
    Py_buffer *labels = array_hold(&held, labels_source, 1, 8, text.text.length, "labels");
    if (!labels) goto done;
    Py_buffer *shares = array_hold(&held, shares_source, 1, 8, text.text.length, "shares");
    if (!shares) goto done;
    size_t cells = (size_t)(model->features + 1) * LANGID_LANES, classes = (size_t)model->classes;
    room.counts = PyMem_Calloc(cells, sizeof *room.counts);
    room.seen = PyMem_Calloc(cells, sizeof *room.seen);
    room.sums = PyMem_Calloc(classes * LANGID_LEVELS, sizeof *room.sums);
    room.scores = PyMem_Calloc(classes, sizeof *room.scores);
    if (!room.counts || !room.seen || !room.sums || !room.scores) {
        PyErr_NoMemory();
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    langid_classify(&text.text, model, room, simd & simd_features(), labels->buf, shares->buf);
    Py_END_ALLOW_THREADS
    result = Py_NewRef(Py_None);
done:
    PyMem_Free(room.counts);
    PyMem_Free(room.seen);
    PyMem_Free(room.sums);
    PyMem_Free(room.scores);
    arrays_drop(&held);
    text_drop(&text);
    return result;
}

static PyMethodDef langid_methods[] = {
    {"langid_model", py_langid_model, METH_VARARGS,
     "langid_model(next, rows, outputs, weights, unit, prior, first): the arrays, checked once, for langid_classify."},
    {"langid_classify", py_langid_classify, METH_VARARGS,
     "langid_classify(text, model, simd, labels, shares): each text's most likely class, and its share."},
    {NULL, NULL, 0, NULL},
};

/* ---------------------------------------------------------------- contamination */

/* Starts of CSR rows: from 0, never decreasing, to `most`. */
static int check_rising(const Py_buffer *view, int64_t most, const char *name) {
    const int64_t *starts = view->buf;
    int64_t n = view->len / 8;
    int fits = starts[0] == 0 && starts[n - 1] == most;
    for (int64_t i = 1; i < n && fits; i++) fits = starts[i] >= starts[i - 1];
    if (fits) return 0;
    PyErr_Format(PyExc_ValueError, "expected '%s' to rise from 0 to %lld", name, (long long)most);
    return -1;
}

static int check_index(const contamination_index *index, const Py_buffer *ids, const Py_buffer *filter) {
    const int32_t *values = ids->buf;
    int64_t empty = 0;
    for (uint64_t i = 0; i < index->slots; i++) {
        empty += values[i] == -1;
        if (values[i] >= -1 && values[i] < index->n_grams) continue;
        PyErr_Format(PyExc_ValueError, "expected ids from -1 to %lld, got %d", (long long)index->n_grams - 1, (int)values[i]);
        return -1;
    }
    if (empty && (index->slots & (index->slots - 1)) == 0 && index->few >= 1 && index->many > index->few &&
        index->many <= CONTAMINATION_MAX_GRAM && index->filter_bits >= 3 && index->filter_bits <= 40 &&
        filter->len == (Py_ssize_t)1 << (index->filter_bits - 3))
        return 0;
    PyErr_SetString(PyExc_ValueError, "expected 1 <= few < many <= 64, a power of two of slots, one of them empty, and 2^filter_bits bits of filter");
    return -1;
}

/* (few, many, keys, ids, filter, filter_bits, starts, weights, items, term_starts, terms, least) */
static int contamination_hold(held_arrays *held, PyObject *args, contamination_index *index) {
    PyObject *source[9];
    if (!PyArg_ParseTuple(args, "iiOOOiOOOOOO", &index->few, &index->many, &source[0], &source[1], &source[2], &index->filter_bits,
                          &source[3], &source[4], &source[5], &source[6], &source[7], &source[8]))
        return -1;
    Py_buffer *keys = array_hold(held, source[0], 0, 8, 1, "keys");
    if (!keys) return -1;
    Py_buffer *ids = array_hold(held, source[1], 0, 4, keys->len / 8, "ids");
    if (!ids) return -1;
    Py_buffer *filter = array_hold(held, source[2], 0, 1, 1, "filter");
    if (!filter) return -1;
    Py_buffer *starts = array_hold(held, source[3], 0, 8, 1, "starts");
    if (!starts) return -1;
    index->n_grams = starts->len / 8 - 1;
    Py_buffer *weights = array_hold(held, source[4], 0, 8, index->n_grams, "weights");
    if (!weights) return -1;
    Py_buffer *items = array_hold(held, source[5], 0, 4, 0, "items");
    if (!items) return -1;
    Py_buffer *term_starts = array_hold(held, source[6], 0, 8, 1, "term_starts");
    if (!term_starts) return -1;
    index->n_items = term_starts->len / 8 - 1;
    Py_buffer *terms = array_hold(held, source[7], 0, 8, 0, "terms");
    if (!terms) return -1;
    Py_buffer *least = array_hold(held, source[8], 0, 8, index->n_items, "least");
    if (!least) return -1;
    index->slots = (uint64_t)keys->len / 8;
    if (check_index(index, ids, filter) < 0 || check_rising(starts, items->len / 4, "starts") < 0 ||
        check_rising(term_starts, terms->len / 8, "term_starts") < 0 || check_places(items, index->n_items, "items") < 0)
        return -1;
    index->keys = keys->buf;
    index->ids = ids->buf;
    index->filter = filter->buf;
    index->starts = starts->buf;
    index->weights = weights->buf;
    index->items = items->buf;
    index->term_starts = term_starts->buf;
    index->terms = terms->buf;
    index->least = least->buf;
    return 0;
}

/* An index that was checked once, with the arrays that it points into. */
typedef struct {
    held_arrays held;
    contamination_index index;
} kept_index;

static const char CONTAMINATION_INDEX[] = "curate.contamination_index";

static void contamination_free(PyObject *capsule) {
    kept_index *kept = PyCapsule_GetPointer(capsule, CONTAMINATION_INDEX);
    if (!kept) return;
    arrays_drop(&kept->held);
    PyMem_Free(kept);
}

static PyObject *py_contamination_index(PyObject *Py_UNUSED(module), PyObject *args) {
    kept_index *kept = PyMem_Calloc(1, sizeof *kept);
    if (!kept) return PyErr_NoMemory();
    PyObject *result = NULL;
    if (contamination_hold(&kept->held, args, &kept->index) == 0)
        result = PyCapsule_New(kept, CONTAMINATION_INDEX, contamination_free);
    if (!result) {
        arrays_drop(&kept->held);
        PyMem_Free(kept);
    }
    return result;
}

/* Room on the desk for the longest row; NULL with an exception. */
static void *contamination_room(const curate_text *text, int64_t n_grams, int64_t n_items) {
    int64_t longest = longest_row(text);
    if (longest > TOKENS_MAX_BYTES / 2) {
        PyErr_Format(PyExc_ValueError, "expected documents of at most %lld bytes, got one of %lld; split it first",
                     (long long)TOKENS_MAX_BYTES / 2, (long long)longest);
        return NULL;
    }
    void *room = PyMem_Malloc((size_t)contamination_room_bytes(text, n_grams, n_items));
    if (!room) PyErr_NoMemory();
    return room;
}

/* (grams uint64[n], keys, ids, filter, filter_bits) */
static PyObject *py_contamination_enter(PyObject *Py_UNUSED(module), PyObject *args) {
    PyObject *source[4], *result = NULL;
    int filter_bits;
    held_arrays held = {.n = 0};
    if (!PyArg_ParseTuple(args, "OOOOi", &source[0], &source[1], &source[2], &source[3], &filter_bits)) return NULL;
    Py_buffer *grams = array_hold(&held, source[0], 0, 8, 0, "grams");
    if (!grams) goto done;
    Py_buffer *keys = array_hold(&held, source[1], 1, 8, grams->len / 8 + 1, "keys");
    if (!keys) goto done;
    uint64_t slots = (uint64_t)keys->len / 8;
    Py_buffer *ids = array_hold(&held, source[2], 1, 4, (int64_t)slots, "ids");
    if (!ids) goto done;
    Py_buffer *filter = array_hold(&held, source[3], 1, 1, 1, "filter");
    if (!filter) goto done;
    if ((slots & (slots - 1)) || filter_bits < 3 || filter_bits > 40 || filter->len != (Py_ssize_t)1 << (filter_bits - 3)) {
        PyErr_SetString(PyExc_ValueError, "expected a power of two of slots and 2^filter_bits bits of filter");
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    contamination_enter(grams->buf, grams->len / 8, keys->buf, ids->buf, slots, filter->buf, filter_bits);
    Py_END_ALLOW_THREADS
    result = Py_NewRef(Py_None);
done:
    arrays_drop(&held);
    return result;
}

/* (text, simd, terms uint64[half of the bytes, rows, 80], ends int64[n]) */
static PyObject *py_contamination_terms(PyObject *Py_UNUSED(module), PyObject *args) {
    PyObject *source, *terms_source, *ends_source, *result = NULL;
    int simd;
    held_arrays held = {.n = 0};
    held_text text = {0};
    void *room = NULL;
    if (!PyArg_ParseTuple(args, "OiOO", &source, &simd, &terms_source, &ends_source)) return NULL;
    if (text_hold(source, &text) < 0) goto done;
    int64_t rows = text.text.length, bytes = rows ? text_offset(&text.text, rows) - text_offset(&text.text, 0) : 0;
    Py_buffer *terms = array_hold(&held, terms_source, 1, 8, bytes / 2 + rows + 80, "terms");
    if (!terms) goto done;
    Py_buffer *ends = array_hold(&held, ends_source, 1, 8, rows, "ends");
    if (!ends) goto done;
    room = contamination_room(&text.text, 0, 0);
    if (!room) goto done;
    Py_BEGIN_ALLOW_THREADS
    contamination_terms(&text.text, simd & simd_features(), terms->buf, ends->buf, room);
    Py_END_ALLOW_THREADS
    result = Py_NewRef(Py_None);
done:
    PyMem_Free(room);
    arrays_drop(&held);
    text_drop(&text);
    return result;
}

/* (text, index, simd, documents int64[grams]) */
static PyObject *py_contamination_count(PyObject *Py_UNUSED(module), PyObject *args) {
    PyObject *source, *capsule, *documents_source, *result = NULL;
    int simd;
    held_arrays held = {.n = 0};
    held_text text = {0};
    void *room = NULL;
    if (!PyArg_ParseTuple(args, "OOiO", &source, &capsule, &simd, &documents_source)) return NULL;
    const kept_index *kept = PyCapsule_GetPointer(capsule, CONTAMINATION_INDEX);
    if (!kept) return NULL;
    contamination_index index = kept->index;
    if (text_hold(source, &text) < 0) goto done;
    Py_buffer *documents = array_hold(&held, documents_source, 1, 8, index.n_grams, "documents");
    if (!documents) goto done;
    room = contamination_room(&text.text, index.n_grams, 0);
    if (!room) goto done;
    index.simd = simd & simd_features();
    Py_BEGIN_ALLOW_THREADS
    contamination_count(&text.text, &index, documents->buf, room);
    Py_END_ALLOW_THREADS
    result = Py_NewRef(Py_None);
done:
    PyMem_Free(room);
    arrays_drop(&held);
    text_drop(&text);
    return result;
}

/* (text, index, simd, row, words int64[n], whole uint64[n], found int64[room, 6]) -> (row to go on with, how many found) */
static PyObject *py_contamination_match(PyObject *Py_UNUSED(module), PyObject *args) {
    PyObject *source, *capsule, *words_source, *whole_source, *found_source, *result = NULL;
    int simd;
    long long row;
    int64_t n = 0, next = 0;
    held_arrays held = {.n = 0};
    held_text text = {0};
    void *room = NULL;
    if (!PyArg_ParseTuple(args, "OOiLOOO", &source, &capsule, &simd, &row, &words_source, &whole_source, &found_source)) return NULL;
    const kept_index *kept = PyCapsule_GetPointer(capsule, CONTAMINATION_INDEX);
    if (!kept) return NULL;
    contamination_index index = kept->index;
    if (text_hold(source, &text) < 0) goto done;
    Py_buffer *words = array_hold(&held, words_source, 1, 8, text.text.length, "words");
    if (!words) goto done;
    Py_buffer *whole = array_hold(&held, whole_source, 1, 8, text.text.length, "whole");
    if (!whole) goto done;
    Py_buffer *found = array_hold(&held, found_source, 1, 8 * CONTAMINATION_FOUND, index.n_items, "found");
    if (!found) goto done;
    if (row < 0) {
        PyErr_Format(PyExc_ValueError, "expected a row of 0 or more, got %lld", row);
        goto done;
    }
    room = contamination_room(&text.text, index.n_grams, index.n_items);
    if (!room) goto done;
    index.simd = simd & simd_features();
    Py_BEGIN_ALLOW_THREADS
    next = contamination_match(&text.text, &index, row, words->buf, whole->buf, found->buf,
                               found->len / (8 * CONTAMINATION_FOUND), &n, room);
    Py_END_ALLOW_THREADS
    result = Py_BuildValue("LL", (long long)next, (long long)n);
done:
    PyMem_Free(room);
    arrays_drop(&held);
    text_drop(&text);
    return result;
}

static PyMethodDef contamination_methods[] = {
    {"contamination_enter", py_contamination_enter, METH_VARARGS,
     "contamination_enter(grams, keys, ids, filter, filter_bits): different keys into an empty table."},
    {"contamination_index", py_contamination_index, METH_VARARGS,
     "contamination_index(few, many, keys, ids, filter, filter_bits, starts, weights, items, term_starts, terms, least): checked once."},
    {"contamination_terms", py_contamination_terms, METH_VARARGS, "contamination_terms(text, simd, terms, ends): hashes of each text's words."},
    {"contamination_count", py_contamination_count, METH_VARARGS,
     "contamination_count(text, index, simd, documents): in how many texts each n-gram stands."},
    {"contamination_match", py_contamination_match, METH_VARARGS,
     "contamination_match(text, index, simd, row, words, whole, found): what each text shares with the items."},
    {NULL, NULL, 0, NULL},
};

/* ---------------------------------------------------------------- the module */

static int module_exec(PyObject *module) {
    PyMethodDef *const tables[] = {simd_methods, noise_methods,   text_methods,  lines_methods, ngrams_methods,
                                   ngramlm_methods, minhash_methods, zipfit_methods, embed_methods,
                                   langid_methods, contamination_methods};
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++)
        if (PyModule_AddFunctions(module, tables[i]) < 0) return -1;
    return 0;
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
#ifdef Py_mod_multiple_interpreters
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#ifdef Py_mod_gil
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef module_def = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "curate._native",
    .m_doc = "C kernels of curate over Arrow text; use them through curate.ngrams and curate.randomness.",
    .m_slots = module_slots,
};

PyMODINIT_FUNC PyInit__native(void) { return PyModuleDef_Init(&module_def); }
