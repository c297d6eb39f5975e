/* The only file that knows Python. Each function takes buffers and capsules, checks them, releases the GIL around one
 * kernel, and returns. Arrow memory is borrowed: the tuple of capsules is held while the kernel runs, and nothing here
 * calls `release`.
 *
 * One method table per kernel, added in `module_exec`; a new kernel brings its section and its table.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "arrow_abi.h"
#include "ngramlm.h"
#include "noise.h"
#include "simd.h"
#include "text.h"

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
    if (!text->data && text_offset(text, text->length) > 0) {
        PyErr_SetString(PyExc_ValueError, "expected bytes behind the offsets of a string array, got none");
        return -1;
    }
    return 0;
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

/* ---------------------------------------------------------------- the module */

static int module_exec(PyObject *module) {
    PyMethodDef *const tables[] = {simd_methods, noise_methods, ngramlm_methods};
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
