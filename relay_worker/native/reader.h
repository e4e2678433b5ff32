/* What reads one connection, and the calls of the Python beside it. */

#ifndef RELAY_READER_H
#define RELAY_READER_H

#include "wake.h"

/* The order of `ReaderParts` in the package. */
enum { BUFFER, NOW_CALL, SINK, OF_SESSION, SOURCE, ENDED, GO_ON, TAKE, INCOMING, OUTGOING, READ, WRITE, RECORD, REFUSAL,
       WANTING, TLS, READER_PARTS };

typedef struct {
    PyObject_HEAD
    int fd; /* -1 when it is closed */
    Py_ssize_t wakes;
    int vain;      /* waits that brought nothing, in a row */
    int in_record; /* what has come ends within one */
    void *connection; /* OpenSSL's, which the part `READ` keeps; NULL where it is not known */
    Py_buffer buffer;
    PyObject *parts[READER_PARTS];
} Reader;

PyObject *hand_over(PyObject *function, const char *format, ...);
PyObject *caught(void);
int decrypt(Reader *self, Py_ssize_t size, PyObject **data, PyObject **done);
void *connection_in(PyObject *found);
int decrypt_directly(Reader *self, Py_ssize_t size, PyObject **data, int *pending);

#endif
