/* The state of a camera's parts, which is the Python's: attributes read into numbers, and written back. */

#include "wake.h"

#define FIELD(part, type, name, attribute) {part, type, attribute},
static const Field input_fields[] = {INPUT_FIELDS(FIELD)};
static const Field output_fields[] = {OUTPUT_FIELDS(FIELD)};

#define TEXT(name) #name,
static const char *const texts[] = {NAMES(TEXT)};

static PyObject *input_names[INPUT_COUNT], *output_names[OUTPUT_COUNT];
PyObject *names[NAME_COUNT];

/* Read the fields of these parts; 0 when one is not what it should be. None as a part has only zeros. */
static int
load(const Field *fields, PyObject *const *field_names, int count, PyObject *const *parts, Value *values)
{
    for (int index = 0; index < count; index++) {
        PyObject *part = parts[fields[index].part];
        values[index].i = 0;
        if (part == Py_None)
            continue;
        PyObject *found = PyObject_GetAttr(part, field_names[index]);
        if (found == NULL)
            return 0;
        int fits = 1;
        switch (fields[index].type) {
        case INT:
            fits = PyLong_Check(found);
            if (fits)
                values[index].i = PyLong_AsLongLong(found);
            break;
        case FLAG:
            fits = found == Py_True || found == Py_False;
            values[index].i = found == Py_True;
            break;
        case MAYBE:
            if (found == Py_None) {
                values[index].r = NAN;
                break;
            } /* fall through */
        case REAL:
            fits = PyFloat_Check(found) || PyLong_Check(found);
            if (fits)
                values[index].r = PyFloat_AsDouble(found);
        }
        Py_DECREF(found);
        if (!fits || PyErr_Occurred())
            return 0;
    }
    return 1;
}

/* Write back the fields that have changed; -1 with an exception. */
static int
store(const Field *fields, PyObject *const *field_names, int count, PyObject *const *parts, const Value *before,
      const Value *values)
{
    for (int index = 0; index < count; index++) {
        if (before[index].i == values[index].i || parts[fields[index].part] == Py_None)
            continue;
        PyObject *made;
        if (fields[index].type == INT)
            made = PyLong_FromLongLong(values[index].i);
        else if (fields[index].type == FLAG)
            made = PyBool_FromLong((long)values[index].i);
        else
            made = PyFloat_FromDouble(values[index].r);
        if (made == NULL)
            return -1;
        int failed = PyObject_SetAttr(parts[fields[index].part], field_names[index], made);
        Py_DECREF(made);
        if (failed)
            return -1;
    }
    return 0;
}

int
load_input(PyObject *const *parts, Value *values)
{
    return load(input_fields, input_names, INPUT_COUNT, parts, values);
}

int
load_output(Output *output)
{
    return load(output_fields, output_names, OUTPUT_COUNT, output->parts, output->before);
}

int
store_input(PyObject *const *parts, const Value *before, const Value *values)
{
    return store(input_fields, input_names, INPUT_COUNT, parts, before, values);
}

int
store_output(Output *output)
{
    return store(output_fields, output_names, OUTPUT_COUNT, output->parts, output->before, output->now);
}

/* Whether an attribute is None (or, with `empty`, has no items). */
int
is_none(PyObject *object, int name, int empty)
{
    PyObject *found = PyObject_GetAttr(object, names[name]);
    if (found == NULL)
        return 0;
    int is = empty ? PyObject_Size(found) == 0 : found == Py_None;
    Py_DECREF(found);
    return is;
}

/* An attribute that is a tuple of two numbers, the first of which may be an integer. */
int
load_pair(PyObject *object, int name, double *first, double *second)
{
    PyObject *found = PyObject_GetAttr(object, names[name]);
    if (found == NULL)
        return 0;
    int is = PyTuple_CheckExact(found) && PyTuple_Size(found) == 2;
    if (is) {
        *first = PyFloat_AsDouble(PyTuple_GetItem(found, 0));
        *second = PyFloat_AsDouble(PyTuple_GetItem(found, 1));
    }
    Py_DECREF(found);
    return is && !PyErr_Occurred();
}

int
is_guarded(PyObject *guards)
{
    Py_ssize_t count = PyTuple_Size(guards);
    for (Py_ssize_t index = 0; index < count; index++) {
        PyObject *guard = PyTuple_GetItem(guards, index);
        PyObject *found = PyObject_GetAttr(PyTuple_GetItem(guard, 0), PyTuple_GetItem(guard, 1));
        if (found == NULL)
            return 0;
        Py_DECREF(found); /* compared by identity: whoever has it keeps it alive */
        if (found != PyTuple_GetItem(guard, 2))
            return 0;
    }
    return 1;
}

int
set_pair(PyObject *object, int name, PyObject *first, PyObject *second)
{
    PyObject *pair = first == NULL || second == NULL ? NULL : PyTuple_Pack(2, first, second);
    int failed = pair == NULL || PyObject_SetAttr(object, names[name], pair);
    Py_XDECREF(first);
    Py_XDECREF(second);
    Py_XDECREF(pair);
    return failed ? -1 : 0;
}

int
set_item(PyObject *object, int name, PyObject *key, PyObject *value)
{
    PyObject *found = PyObject_GetAttr(object, names[name]);
    int failed = found == NULL || PyObject_SetItem(found, key, value);
    Py_XDECREF(found);
    return failed ? -1 : 0;
}

/* Call a method for its effect; arguments may be NULL behind the last. */
int
call(PyObject *object, int name, PyObject *first, PyObject *second)
{
    PyObject *done = PyObject_CallMethodObjArgs(object, names[name], first, second, NULL);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

static int
intern(PyObject **into, const char *text)
{
    if (*into == NULL)
        *into = PyUnicode_InternFromString(text);
    return *into == NULL;
}

int
intern_names(void)
{
    int failed = 0;
    for (int index = 0; index < NAME_COUNT; index++)
        failed |= intern(&names[index], texts[index]);
    for (int index = 0; index < INPUT_COUNT; index++)
        failed |= intern(&input_names[index], input_fields[index].name);
    for (int index = 0; index < OUTPUT_COUNT; index++)
        failed |= intern(&output_names[index], output_fields[index].name);
    return failed ? -1 : 0;
}
