/* What reads a socket that media comes to as datagrams. */

#ifndef RELAY_DATAGRAMS_H
#define RELAY_DATAGRAMS_H

#include "packets.h"

#include <sys/socket.h>

enum {
    MOST_STREAMS = 8,
    MOST_DATAGRAM = 2048, /* webrtc/incoming.py, MAX_DATAGRAM */
};

typedef struct {
    uint32_t ssrc, payload_type;
    int channel;
} Stream;

typedef struct {
    PyObject_HEAD
    PyObject *incoming, *owner; /* the socket; of the context */
    protect_function unprotect;
    void *context;
    Stream streams[MOST_STREAMS];
    int stream_count;
    long most; /* datagrams in one wake */
    uint8_t *frames;
} Datagrams;

typedef struct {
    size_t size; /* of the frames so far */
    long refused;
    uint32_t words[MOST_DATAGRAM / 4]; /* a datagram; libsrtp wants it aligned */
    struct sockaddr_storage sender;
    socklen_t sender_size;
} Arrival;

/* Whether this is `Datagrams`. */
int is_datagrams(PyObject *object);

/* Read what there is behind `count` datagrams: the size of the first that is no RTP, which is in `words` then, or -1. */
ssize_t receive_datagrams(Datagrams *datagrams, Arrival *came, long count);

/* What has come: bytes where all of it is frames, else (frames, refused, datagram, its sender). NULL with an exception. */
PyObject *arrived(const Datagrams *datagrams, const Arrival *came, ssize_t other);

#endif
