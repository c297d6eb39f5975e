/* The only file that knows Python. Each function takes buffers and capsules, checks them, releases the GIL around one
 * kernel, and returns. Arrow memory is borrowed: the tuple of capsules is held while the kernel runs, and nothing here
 * calls `release`.
 *
 * One method table per kernel, added in `module_exec`; a new kernel brings its section and its table.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "arrow_abi.h"
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

/* ---------------------------------------------------------------- the module */

static int module_exec(PyObject *module) {
    PyMethodDef *const tables[] = {simd_methods, noise_methods};
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
