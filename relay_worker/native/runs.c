/* Runs of plain packets: the inner loops of the data path, compiled.
 *
 * The Python beside each call is the specification. Every function here takes what is plain from the front of a run and
 * returns where it stopped; whatever is not plain is left to the Python, which would have given the same for the rest.
 * Bytes come from a network: each read is behind a comparison with the length of the object that is read.
 *
 * Only the limited API of CPython 3.11 is used, so that one build serves every later version.
 */

#include "wake.h"

/* split_frames(buffer: bytes, position, packets: dict[int, list[bytes]]) -> position */
static PyObject *
split_frames(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    if (wrong_arguments("split_frames", count, 3))
        return NULL;
    if (!PyBytes_CheckExact(arguments[0]) || !PyDict_CheckExact(arguments[2])) {
        PyErr_SetString(PyExc_TypeError, "split_frames takes bytes and a dict");
        return NULL;
    }
    const uint8_t *buffer = (const uint8_t *)PyBytes_AsString(arguments[0]);
    Py_ssize_t end = PyBytes_Size(arguments[0]);
    Py_ssize_t position = PyLong_AsSsize_t(arguments[1]);
    if (position < 0) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_ValueError, "a position is not negative");
        return NULL;
    }
    int channel = -1;
    PyObject *list = NULL; /* of `channel`; borrowed from the dict, which nothing here changes */
    while (position <= end - 4 && buffer[position] == DOLLAR) {
        Py_ssize_t size = (Py_ssize_t)read16(buffer + position + 2);
        if (size > end - position - 4)
            break;
        if (buffer[position + 1] != channel) {
            channel = buffer[position + 1];
            PyObject *key = PyLong_FromLong(channel);
            if (key == NULL)
                return NULL;
            list = PyDict_GetItemWithError(arguments[2], key);
            Py_DECREF(key);
            if (list == NULL && PyErr_Occurred())
                return NULL;
            if (list != NULL && !PyList_CheckExact(list))
                list = NULL;
        }
        if (list == NULL)
            break;
        PyObject *packet = PyBytes_FromStringAndSize((const char *)buffer + position + 4, size);
        if (packet == NULL)
            return NULL;
        int failed = PyList_Append(list, packet);
        Py_DECREF(packet);
        if (failed)
            return NULL;
        position += 4 + size;
    }
    return PyLong_FromSsize_t(position);
}

/* take_plain(packets: list[bytes], index, sequence, timestamp, ssrc, payload_type or -1, payloads: list)
 * -> (index after the last that was taken, bytes of those that were taken) */
static PyObject *
take_plain(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    if (wrong_arguments("take_plain", count, 7))
        return NULL;
    PyObject *packets = arguments[0], *payloads = arguments[6];
    if (!PyList_CheckExact(packets) || !PyList_CheckExact(payloads) || packets == payloads) {
        PyErr_SetString(PyExc_TypeError, "take_plain takes two lists");
        return NULL;
    }
    Py_ssize_t index = PyLong_AsSsize_t(arguments[1]), end = PyList_Size(packets), bytes = 0;
    int64_t sequence = number(arguments[2]), timestamp = number(arguments[3]), ssrc = number(arguments[4]);
    long wanted = PyLong_AsLong(arguments[5]);
    if (PyErr_Occurred())
        return NULL;
    for (; index >= 0 && index < end; index++, sequence++) {
        PyObject *packet = PyList_GetItem(packets, index);
        if (packet == NULL)
            return NULL;
        if (!PyBytes_CheckExact(packet))
            break;
        const uint8_t *at = (const uint8_t *)PyBytes_AsString(packet);
        Py_ssize_t size = PyBytes_Size(packet);
        /* The first octet of nearly every packet: neither padding, extension nor CSRC. */
        if (size < RTP_HEADER || at[0] != 0x80 || read16(at + 2) != sequence || read32(at + 4) != timestamp ||
            read32(at + 8) != ssrc || (wanted >= 0 && (at[1] & 0x7F) != wanted))
            break;
        PyObject *payload = PyBytes_FromStringAndSize((const char *)at + RTP_HEADER, size - RTP_HEADER);
        PyObject *pair = payload == NULL ? NULL : PyTuple_Pack(2, payload, at[1] > 127 ? Py_True : Py_False);
        int failed = pair == NULL || PyList_Append(payloads, pair);
        Py_XDECREF(payload);
        Py_XDECREF(pair);
        if (failed)
            return NULL;
        bytes += size;
    }
    return Py_BuildValue("nn", index, bytes);
}

/* pass_fragments(payloads, index, most, ends: bool) -> (index, end): the stretch of FU-A fragments from `index` that go
 * out as they came. `end` is 0 while the NAL unit goes on, 1 behind its last fragment, 2 when that one was marked. */
static PyObject *
pass_fragments(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    if (wrong_arguments("pass_fragments", count, 4))
        return NULL;
    PyObject *payloads = arguments[0], *payload;
    if (!PyList_CheckExact(payloads)) {
        PyErr_SetString(PyExc_TypeError, "pass_fragments takes a list");
        return NULL;
    }
    Py_ssize_t index = PyLong_AsSsize_t(arguments[1]), most = PyLong_AsSsize_t(arguments[2]);
    if (PyErr_Occurred())
        return NULL;
    int marker, end = 0, ends = arguments[3] == Py_True;
    for (; index >= 0 && payload_at(payloads, index, &payload, &marker); index++) {
        const uint8_t *at = (const uint8_t *)PyBytes_AsString(payload);
        Py_ssize_t size = PyBytes_Size(payload);
        if (size < 3 || size > most || (at[0] & 0x1F) != FU_A || at[1] >= FU_START)
            break;
        if (at[1] & FU_END) {
            if (!ends)
                break;
            end = marker ? 2 : 1;
            index++;
            break;
        }
        if (marker)
            break;
    }
    return Py_BuildValue("ni", index, end);
}

/* measure(payloads, most) -> bytes of all, or -1 when one of them is longer than `most`, or not plain bytes */
static PyObject *
measure(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    if (wrong_arguments("measure", count, 2))
        return NULL;
    Py_ssize_t most = PyLong_AsSsize_t(arguments[1]), bytes = 0;
    if (PyErr_Occurred())
        return NULL;
    if (!PyList_CheckExact(arguments[0]))
        return PyLong_FromLong(-1);
    Py_ssize_t end = PyList_Size(arguments[0]);
    for (Py_ssize_t index = 0; index < end; index++) {
        PyObject *payload;
        int marker;
        if (!payload_at(arguments[0], index, &payload, &marker) || PyBytes_Size(payload) > most)
            return PyLong_FromLong(-1);
        bytes += PyBytes_Size(payload);
    }
    return PyLong_FromSsize_t(bytes);
}

static PyMethodDef functions[] = {
    {"split_frames", (PyCFunction)(void (*)(void))split_frames, METH_FASTCALL, NULL},
    {"take_plain", (PyCFunction)(void (*)(void))take_plain, METH_FASTCALL, NULL},
    {"pass_fragments", (PyCFunction)(void (*)(void))pass_fragments, METH_FASTCALL, NULL},
    {"measure", (PyCFunction)(void (*)(void))measure, METH_FASTCALL, NULL},
    {"kept", history_kept, METH_O, NULL},
    {"watch_tls", watch_tls, METH_VARARGS, NULL},
    {"find_decoder", find_decoder, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static int
fill(PyObject *module)
{
    return add_slots(module) || add_states(module) || add_wakes(module) || add_readers(module) || add_datagrams(module) ||
                   add_arrivals(module)
               ? -1
               : 0;
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, fill},
    {0, NULL},
};

static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "_runs",
    .m_size = 0,
    .m_methods = functions,
    .m_slots = module_slots,
};

PyMODINIT_FUNC
PyInit__runs(void)
{
    return PyModuleDef_Init(&definition);
}
