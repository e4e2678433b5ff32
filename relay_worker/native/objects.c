/* What compiled code asks of the Python's objects, apart from the numbers in their slots. */

#include "wake.h"

#define TEXT(name) #name,
static const char *const texts[] = {NAMES(TEXT)};

PyObject *names[NAME_COUNT];

int
is_empty(PyObject *object)
{
    if (object == NULL)
        return 0;
    Py_ssize_t size = PyObject_Size(object);
    if (size < 0)
        PyErr_Clear();
    return size == 0;
}

int
make_guards(Wake *self)
{
    Py_ssize_t count = PyTuple_Size(self->guards);
    self->guard = PyMem_Calloc((size_t)count + 1, sizeof(Guard)); /* also of none */
    if (self->guard == NULL)
        return 0;
    for (Py_ssize_t index = 0; index < count; index++) {
        PyObject *given = PyTuple_GetItem(self->guards, index);
        Guard *guard = &self->guard[index];
        if (!PyTuple_Check(given) || PyTuple_Size(given) != 3 || !PyUnicode_Check(PyTuple_GetItem(given, 1)))
            return 0;
        guard->object = PyTuple_GetItem(given, 0);
        guard->name = PyTuple_GetItem(given, 1);
        guard->value = PyTuple_GetItem(given, 2);
        const char *name = PyUnicode_AsUTF8AndSize(guard->name, NULL);
        if (name == NULL)
            return 0;
        guard->slot = find_slot(guard->object, name, &guard->type);
        if (guard->slot != NULL && guard->type != OBJECT && guard->type != FLAG)
            guard->slot = NULL; /* numbers are no objects that could be the same */
    }
    return 1;
}

int
is_guarded(const Wake *self)
{
    if (self->guards == NULL)
        return 0;
    for (const Guard *guard = self->guard; guard->object != NULL; guard++) {
        if (guard->slot == NULL) {
            PyObject *found = PyObject_GetAttr(guard->object, guard->name);
            if (found == NULL) {
                PyErr_Clear();
                return 0;
            }
            Py_DECREF(found); /* compared by identity: whoever has it keeps it alive */
            if (found != guard->value)
                return 0;
        }
        else if (guard->type == FLAG ? guard->value != (guard->slot->i ? Py_True : Py_False)
                                     : guard->slot->o != guard->value)
            return 0;
    }
    return 1;
}

int
set_item(PyObject *dict, PyObject *key, PyObject *value)
{
    if (dict == NULL) {
        PyErr_SetString(PyExc_AttributeError, "there is no dict");
        return -1;
    }
    return PyObject_SetItem(dict, key, value);
}

/* Call a method for its effect; arguments may be NULL behind the last. */
int
call(PyObject *object, int name, PyObject *first, PyObject *second)
{
    PyObject *done = PyObject_CallMethodObjArgs(object, names[name], first, second, NULL);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

PyObject *
call_again(Method *found, PyObject *object, int name, PyObject *argument)
{
    if (found->object != object) {
        PyObject *method = PyObject_GetAttr(object, names[name]), *before = found->method;
        if (method == NULL)
            return NULL;
        found->object = object;
        found->method = method;
        Py_XDECREF(before);
    }
    PyObject *method = Py_NewRef(found->method); /* whatever is called */
    PyObject *done = argument == NULL ? PyObject_CallNoArgs(method) : PyObject_CallFunctionObjArgs(method, argument, NULL);
    Py_DECREF(method);
    return done;
}

int
hand_on(const Work *work, const Run *run, PyObject *pipeline, int method, PyObject *material)
{
    PyObject *payloads = PyList_New(0), *media = PyFloat_FromDouble(run->media);
    int failed = payloads == NULL || media == NULL;
    for (int index = run->out_first; !failed && index < run->out_end; index++) {
        const Piece *piece = &work->payloads[index];
        PyObject *payload = Py_BuildValue("(y#O)", PyBytes_AsString(material) + piece->offset, (Py_ssize_t)piece->size,
                                          piece->marker ? Py_True : Py_False);
        failed = payload == NULL || PyList_Append(payloads, payload);
        Py_XDECREF(payload);
    }
    failed = failed || call(pipeline, method, payloads, media);
    Py_XDECREF(payloads);
    Py_XDECREF(media);
    return failed ? -1 : 0;
}

int
intern_names(void)
{
    for (int index = 0; index < NAME_COUNT; index++)
        if (names[index] == NULL && (names[index] = PyUnicode_InternFromString(texts[index])) == NULL)
            return -1;
    return 0;
}
