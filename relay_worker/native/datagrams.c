/* Media that comes as datagrams: what one wake brought, read and decrypted with one call, and framed as over a connection of
 * RTSP's (RFC 2326, 10.12), so that whole wakes go the same way from there. */

#include "datagrams.h"

#include <errno.h>

enum {
    MOST_PACKET = 1500,    /* what pylibsrtp decrypts */
    MOST_FRAMES = 1 << 15, /* bytes; what is not read stays in the socket, which wakes the loop again */
    NO_CHANNEL = 255, /* of packets that are of no stream */
};

static PyTypeObject *datagrams_type; /* the module keeps it alive, and is never unloaded */

/* RFC 7983, 7 and RFC 5761, 4 */
static int
is_rtp(const uint8_t *datagram, size_t size)
{
    return size > 1 && datagram[0] >= 128 && datagram[0] <= 191 && !(datagram[1] >= 192 && datagram[1] <= 223);
}

static int
channel_of(const Datagrams *self, const uint8_t *packet, size_t size)
{
    if (size < RTP_HEADER)
        return NO_CHANNEL;
    uint32_t payload_type = packet[1] & 0x7F, ssrc = read32(packet + 8);
    for (int index = 0; index < self->stream_count; index++)
        if (self->streams[index].ssrc == ssrc && self->streams[index].payload_type == payload_type)
            return self->streams[index].channel;
    return NO_CHANNEL;
}

/* Decrypt the datagram, of so many bytes, and add it to the frames. There is room for it. */
static void
add_frame(Datagrams *self, Arrival *came, size_t size)
{
    int length = (int)size;
    const uint8_t *packet = (const uint8_t *)came->words;
    if (size > MOST_PACKET || self->unprotect(self->context, came->words, &length) || length <= 0 || (size_t)length > size) {
        came->refused++;
        return;
    }
    uint8_t *at = self->frames + came->size;
    at[0] = DOLLAR;
    at[1] = (uint8_t)channel_of(self, packet, (size_t)length);
    write16(at + 2, (uint32_t)length);
    memcpy(at + FRAME_HEADER, packet, (size_t)length);
    came->size += FRAME_HEADER + (size_t)length;
}

/* The next datagram: its size, -1 where there is none. */
static ssize_t
receive(int fd, Arrival *came)
{
    ssize_t size;
    do {
        came->sender_size = sizeof came->sender;
        size = recvfrom(fd, came->words, sizeof came->words, MSG_DONTWAIT, (struct sockaddr *)&came->sender,
                        &came->sender_size);
    } while (size < 0 && errno == EINTR);
    return size;
}

PyObject *
arrived(const Datagrams *self, const Arrival *came, ssize_t other)
{
    if (other < 0 && !came->refused)
        return PyBytes_FromStringAndSize((const char *)self->frames, (Py_ssize_t)came->size);
    size_t most = sizeof came->sender, sender = came->sender_size < most ? came->sender_size : most;
    return Py_BuildValue("(y#ly#y#)", (const char *)self->frames, (Py_ssize_t)came->size, came->refused,
                         (const char *)came->words, (Py_ssize_t)(other < 0 ? 0 : other), (const char *)&came->sender,
                         (Py_ssize_t)(other < 0 ? 0 : sender));
}

ssize_t
receive_datagrams(Datagrams *self, Arrival *came, long count)
{
    int fd = PyObject_AsFileDescriptor(self->incoming);
    if (fd < 0)
        PyErr_Clear(); /* closed: there is no more to read */
    for (; fd >= 0 && count < self->most && came->size + FRAME_HEADER + MOST_DATAGRAM <= MOST_FRAMES; count++) {
        ssize_t next = receive(fd, came);
        if (next < 0)
            break;
        if (!is_rtp((const uint8_t *)came->words, (size_t)next))
            return next;
        add_frame(self, came, (size_t)next);
    }
    return -1;
}

/* read(datagram: bytes) -> bytes | (frames, refused, datagram, sender) | None, see `native.Datagrams` */
static PyObject *
datagrams_read(PyObject *object, PyObject *first)
{
    Datagrams *self = (Datagrams *)object;
    if (!PyBytes_CheckExact(first)) {
        PyErr_SetString(PyExc_TypeError, "read takes bytes");
        return NULL;
    }
    const uint8_t *data = (const uint8_t *)PyBytes_AsString(first);
    size_t size = (size_t)PyBytes_Size(first);
    if (!is_rtp(data, size) || size > MOST_DATAGRAM)
        return Py_NewRef(Py_None);
    Arrival came;
    came.size = 0;
    came.refused = 0;
    came.sender_size = 0;
    memcpy(came.words, data, size);
    add_frame(self, &came, size);
    ssize_t other = receive_datagrams(self, &came, 1);
    return arrived(self, &came, other);
}

/* know(streams: list of (SSRC, payload type, channel)): which packets are of which channel from now on. */
static PyObject *
datagrams_know(PyObject *object, PyObject *given)
{
    Datagrams *self = (Datagrams *)object;
    if (!PyList_CheckExact(given) || PyList_Size(given) > MOST_STREAMS) {
        PyErr_SetString(PyExc_ValueError, "know takes a list of a few streams");
        return NULL;
    }
    int count = (int)PyList_Size(given);
    Stream streams[MOST_STREAMS];
    for (int index = 0; index < count; index++) {
        PyObject *stream = PyList_GetItem(given, index);
        if (!PyTuple_CheckExact(stream) || PyTuple_Size(stream) != 3) {
            PyErr_SetString(PyExc_ValueError, "a stream is an SSRC, a payload type and a channel");
            return NULL;
        }
        int64_t ssrc = number(PyTuple_GetItem(stream, 0)), type = number(PyTuple_GetItem(stream, 1)),
                channel = number(PyTuple_GetItem(stream, 2));
        if (PyErr_Occurred())
            return NULL;
        if (type > 127 || channel >= NO_CHANNEL) {
            PyErr_SetString(PyExc_ValueError, "no such payload type or channel");
            return NULL;
        }
        streams[index] = (Stream){(uint32_t)ssrc, (uint32_t)type, (int)channel};
    }
    memcpy(self->streams, streams, sizeof(Stream) * (size_t)count);
    self->stream_count = count;
    return Py_NewRef(Py_None);
}

/* Datagrams(incoming, unprotect, context, owner, most) */
static PyObject *
datagrams_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    PyObject *incoming, *unprotect, *context, *owner;
    long most;
    if (keywords != NULL && PyDict_Size(keywords)) {
        PyErr_SetString(PyExc_TypeError, "Datagrams takes no keywords");
        return NULL;
    }
    if (!PyArg_ParseTuple(arguments, "OOOOl", &incoming, &unprotect, &context, &owner, &most))
        return NULL;
    uintptr_t function = (uintptr_t)PyLong_AsSize_t(unprotect), pointer = (uintptr_t)PyLong_AsSize_t(context);
    if (PyErr_Occurred())
        return NULL;
    if (!function || !pointer || most < 1) {
        PyErr_SetString(PyExc_ValueError, "no such datagrams");
        return NULL;
    }
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Datagrams *self = (Datagrams *)allocate(type, 0); /* all zeros */
    if (self == NULL)
        return NULL;
    self->incoming = Py_NewRef(incoming);
    self->owner = Py_NewRef(owner);
    self->unprotect = (protect_function)function;
    self->context = (void *)pointer;
    self->most = most;
    self->frames = PyMem_Malloc(MOST_FRAMES);
    if (self->frames == NULL) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    return (PyObject *)self;
}

static void
datagrams_dealloc(PyObject *object)
{
    Datagrams *self = (Datagrams *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyMem_Free(self->frames);
    Py_XDECREF(self->incoming);
    Py_XDECREF(self->owner);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DECREF(type);
}

static PyMethodDef datagrams_methods[] = {
    {"read", datagrams_read, METH_O, NULL},
    {"know", datagrams_know, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot datagrams_slots[] = {
    {Py_tp_new, datagrams_new},
    {Py_tp_dealloc, datagrams_dealloc},
    {Py_tp_methods, datagrams_methods},
    {0, NULL},
};

static PyType_Spec datagrams_spec = {
    .name = "relay_worker.native._runs.Datagrams",
    .basicsize = sizeof(Datagrams),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = datagrams_slots,
};

int
is_datagrams(PyObject *object)
{
    return Py_IS_TYPE(object, datagrams_type);
}

int
add_datagrams(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &datagrams_spec, NULL);
    datagrams_type = (PyTypeObject *)type;
    int failed = type == NULL || PyModule_AddObjectRef(module, "Datagrams", type);
    Py_XDECREF(type);
    return failed ? -1 : 0;
}
