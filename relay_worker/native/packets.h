/* What both files of the compiled data path share: reading and writing of octets, and packets in slots. */

#ifndef RELAY_PACKETS_H
#define RELAY_PACKETS_H

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>

#include <stdint.h>
#include <string.h>

enum {
    RTP_HEADER = 12,
    DOLLAR = 0x24,    /* RFC 2326 §10.12, as the next */
    FRAME_HEADER = 4,
    FU_A = 28,        /* RFC 6184 §5.8, as the next two */
    FU_START = 0x80,
    FU_END = 0x40,
    MAX_SLOTS = 64,   /* and the packets of one segmented send: UDP_MAX_SEGMENTS of older kernels */
    MAX_RUN_BYTES = 65000,
};

static inline uint32_t
read16(const uint8_t *at)
{
    return (uint32_t)at[0] << 8 | at[1];
}

static inline uint32_t
read32(const uint8_t *at)
{
    return read16(at) << 16 | read16(at + 2);
}

static inline void
write16(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static inline void
write32(uint8_t *at, uint32_t value)
{
    write16(at, value >> 16);
    write16(at + 2, value);
}

static inline int
wrong_arguments(const char *name, Py_ssize_t given, Py_ssize_t wanted)
{
    if (given == wanted)
        return 0;
    PyErr_Format(PyExc_TypeError, "%s takes %zd arguments, not %zd", name, wanted, given);
    return 1;
}

/* An unsigned number of at most 32 bits; anything else raises, and -1 is returned. */
static inline int64_t
number(PyObject *object)
{
    unsigned long value = PyLong_AsUnsignedLong(object);
    if (value == (unsigned long)-1 && PyErr_Occurred())
        return -1;
    if (value > UINT32_MAX) {
        PyErr_SetString(PyExc_OverflowError, "more than 32 bits");
        return -1;
    }
    return (int64_t)value;
}

/* The item at `index` as (payload, marker): 1, with a borrowed payload; 0 when it is anything else. */
static inline int
payload_at(PyObject *payloads, Py_ssize_t index, PyObject **payload, int *marker)
{
    PyObject *item = PyList_GetItem(payloads, index);
    if (item == NULL) {
        PyErr_Clear();
        return 0;
    }
    if (!PyTuple_CheckExact(item) || PyTuple_Size(item) != 2)
        return 0;
    *payload = PyTuple_GetItem(item, 0);
    PyObject *second = PyTuple_GetItem(item, 1);
    if (!PyBytes_CheckExact(*payload) || (second != Py_True && second != Py_False))
        return 0;
    *marker = second == Py_True;
    return 1;
}

/* libsrtp's srtp_protect and srtp_unprotect, as pylibsrtp has loaded them. */
typedef int (*protect_function)(void *context, void *packet, int *length);

typedef struct {
    PyObject_HEAD
    PyObject *owner;    /* of the context */
    Py_buffer buffer;   /* `slots` slots of `slot_size` bytes */
    Py_ssize_t slots, slot_size, trailer;
    protect_function protect;
    void *context;
    int lengths[MAX_SLOTS];      /* of the packet in each */
    uint16_t numbers[MAX_SLOTS]; /* and its transport-wide number */
} Slots;

/* What a packet's header says, but for the marker; ids of 0 for extensions that were not agreed. */
typedef struct {
    uint32_t payload_type, sequence, timestamp, ssrc, time_id, send_time, number_id, number;
} Header;

/* Write and encrypt a packet into `slot`, which exists: 1, 0 when libsrtp refuses it, -1 when it does not fit. */
int write_packet(Slots *slots, Py_ssize_t slot, const Header *header, int marker, const uint8_t *payload, size_t size);

/* Send the packets in the slots from `*first` to `end`, which exist, those of equal size with one call: 0, or the errno
 * of the call for those from `*first` to `*behind`; nothing of them or behind them was sent then. */
int send_slots(Slots *slots, int fd, const void *address, size_t address_size, Py_ssize_t *first, Py_ssize_t end,
               Py_ssize_t *behind, int *calls);

/* What the other files add to the module. */
int add_slots(PyObject *module);
int add_wakes(PyObject *module);
PyObject *watch_tls(PyObject *module, PyObject *arguments);
PyObject *find_decoder(PyObject *module, PyObject *arguments);
int add_readers(PyObject *module);
int add_datagrams(PyObject *module);
int add_arrivals(PyObject *module);

/* Whether this is `Slots`. */
int is_slots(PyObject *object);

#endif
