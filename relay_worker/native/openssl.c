/* OpenSSL as the standard library has loaded it, called without the Python's objects around it: what comes is written to the
 * connection's own memory BIO and read from there, and only where that is not all, the Python's `read` says what is wrong.
 *
 * Where a connection is, OpenSSL says itself: it calls whoever has asked for a place in all connections when one is made
 * (CRYPTO_get_ex_new_index(3)). Nothing of CPython's own structures is looked at.
 */

#include "library.h"
#include "reader.h"

#include <string.h>

enum {
    OF_CONNECTIONS = 0, /* CRYPTO_EX_INDEX_SSL */
    WANT_READ = 2,      /* SSL_ERROR_WANT_READ */
    LONGEST = 16384,    /* bytes of text in a record (RFC 8446, 5.1) */
    CLEAR_MODE = 78,    /* SSL_CTRL_CLEAR_MODE */
    RELEASE_BUFFERS = 0x10, /* SSL_MODE_RELEASE_BUFFERS */
};

typedef void Made(void *connection, void *value, void *data, int index, long number, void *argument);

/* In the order of `symbols`. */
typedef struct {
    int (*read)(void *connection, void *to, size_t room, size_t *size);
    int (*error)(const void *connection, int result);
    void *(*incoming)(const void *connection);
    void *(*outgoing)(const void *connection);
    int (*write)(void *bio, const void *data, int size);
    size_t (*pending)(void *bio);
    long (*control)(void *connection, int command, long number, void *pointer);
    int (*new_index)(int kind, long number, void *argument, Made *made, void *copied, void *freed);
} OpenSSL;

static const char *const symbols[] = {
    "SSL_read_ex", "SSL_get_error", "SSL_get_rbio", "SSL_get_wbio", "BIO_write", "BIO_ctrl_pending", "SSL_ctrl",
    "CRYPTO_get_ex_new_index",
};

static const char TAG[] = "relay_worker.SSL";
static OpenSSL openssl;
static int is_known; /* -1 where it cannot be used */
static __thread void **awaited; /* where the connection goes that this thread is making */

static void
note_connection(void *connection, void *Py_UNUSED(value), void *Py_UNUSED(data), int Py_UNUSED(index),
                long Py_UNUSED(number), void *Py_UNUSED(argument))
{
    if (awaited != NULL && *awaited == NULL)
        *awaited = connection;
}

/* -1 where it cannot be used. */
static int
find_openssl(const char *file)
{
    void *found[sizeof symbols / sizeof *symbols];
    _Static_assert(sizeof found == sizeof openssl, "a function for each symbol");
    if (!find_functions(file, symbols, sizeof symbols / sizeof *symbols, found))
        return -1;
    memcpy(&openssl, found, sizeof found);
    int place = openssl.new_index(OF_CONNECTIONS, 0, NULL, note_connection, NULL, NULL);
    return place < 0 ? -1 : 1;
}

/* watch_tls(file: str, wrap) -> what wrap() returns, and the connection that OpenSSL has made meanwhile, or None */
PyObject *
watch_tls(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    const char *file;
    PyObject *wrap;
    if (!PyArg_ParseTuple(arguments, "sO", &file, &wrap))
        return NULL;
    if (!is_known)
        is_known = find_openssl(file);
    void *connection = NULL, **before = awaited;
    if (is_known > 0)
        awaited = &connection;
    PyObject *made = PyObject_CallNoArgs(wrap), *found = NULL;
    awaited = before;
    if (connection != NULL) /* or 17 KB are allocated and freed for each record */
        openssl.control(connection, CLEAR_MODE, RELEASE_BUFFERS, NULL);
    if (made != NULL)
        found = connection == NULL ? Py_NewRef(Py_None) : PyCapsule_New(connection, TAG, NULL);
    PyObject *both = found == NULL ? NULL : PyTuple_Pack(2, made, found);
    Py_XDECREF(made);
    Py_XDECREF(found);
    return both;
}

/* The connection in what `watch_tls` has returned; NULL with an exception for anything else. */
void *
connection_in(PyObject *found)
{
    return PyCapsule_GetPointer(found, TAG);
}

/* Decrypt `size` bytes of the buffer into it, and put what they are behind `*data`, which may be NULL: 1 where that is all, and
 * nothing is to be sent; 0 where the Python has to go on, by reading where `*pending`; -1 with an exception. */
int
decrypt_directly(Reader *self, Py_ssize_t size, PyObject **data, int *pending)
{
    char *text = self->buffer.buf;
    size_t room = (size_t)self->buffer.len, at = 0, got = 0;
    void *incoming = openssl.incoming(self->connection), *outgoing = openssl.outgoing(self->connection);
    if (openssl.write(incoming, text, (int)size) != size) {
        PyErr_NoMemory();
        return -1;
    }
    /* The thread's queue of errors is not emptied first (SSL_get_error(3)): whoever gets an error raises and clears it, as the
     * standard library relies on, too. */
    int read = 1;
    /* A record is read whole, or its rest would stay in OpenSSL. */
    while ((*pending = openssl.pending(incoming) > 0) && room - at >= LONGEST) {
        if (!(read = openssl.read(self->connection, text + at, room - at, &got)))
            break;
        at += got;
    }
    int in_record = !read && openssl.error(self->connection, 0) == WANT_READ;
    if (at) {
        PyObject *bytes = PyBytes_FromStringAndSize(text, (Py_ssize_t)at);
        if (*data == NULL)
            *data = bytes;
        else if (bytes != NULL)
            PyBytes_ConcatAndDel(data, bytes);
        if (bytes == NULL || *data == NULL)
            return -1;
    }
    if ((*pending && !in_record) || openssl.pending(outgoing))
        return 0;
    self->in_record = in_record;
    return 1;
}
