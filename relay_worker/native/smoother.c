/* When the smoother lets a frame leave at once, and the seconds that it remembers. */

#include "wake.h"

static const double WINDOW = 5.0; /* seconds; publish/smoother.py */

/* Smoother._next_bucket, but for the seconds that it keeps: `keep_second` does that. */
static int
begin_second(Output *output, double transit, double now)
{
    PyObject *seconds = ATTRIBUTE(output->parts[LINE], buckets);
    Py_ssize_t count = seconds == NULL ? -1 : PyObject_Size(seconds);
    double start = floor(now), low_before = INFINITY, high_before = -INFINITY;
    output->second_is_new = 1;
    output->has_ended = OR(low) <= OR(high);
    output->forgotten = 0;
    double ended[] = {OR(bucket_end) - 1.0, OR(low), OR(high)};
    memcpy(output->ended, ended, sizeof ended);
    int plain = count >= 0;
    for (Py_ssize_t index = 0; plain && index < count + output->has_ended; index++) {
        double second[3];
        PyObject *kept = index < count ? PySequence_GetItem(seconds, index) : NULL;
        if (index == count)
            memcpy(second, ended, sizeof ended);
        else if ((plain = kept != NULL && PyTuple_CheckExact(kept) && PyTuple_Size(kept) == 3))
            for (int each = 0; each < 3; each++)
                second[each] = PyFloat_AsDouble(PyTuple_GetItem(kept, each));
        Py_XDECREF(kept);
        plain = plain && !PyErr_Occurred();
        if (plain && second[0] < start - WINDOW && output->forgotten == index) {
            output->forgotten++;
            continue;
        }
        if (plain && second[1] < low_before)
            low_before = second[1];
        if (plain && second[2] > high_before)
            high_before = second[2];
    }
    OR(low_before) = low_before;
    OR(high_before) = high_before;
    OR(low) = OR(high) = transit;
    OR(bucket_end) = start + 1.0;
    return plain;
}

/* The seconds that `begin_second` has ended and forgotten. */
int
keep_second(const Output *output)
{
    PyObject *seconds = ATTRIBUTE(output->parts[LINE], buckets);
    int failed = seconds == NULL; /* never: `begin_second` has read them */
    if (!failed && output->has_ended) {
        PyObject *ended = Py_BuildValue("(ddd)", output->ended[0], output->ended[1], output->ended[2]);
        failed = ended == NULL || call(seconds, n_append, ended, NULL);
        Py_XDECREF(ended);
    }
    for (int index = 0; !failed && index < output->forgotten; index++)
        failed = call(seconds, n_popleft, NULL, NULL);
    return failed ? -1 : 0;
}

/* Smoother.release, where it says now. 0 where it would say anything else. */
int
is_even(Output *output, double media, double now)
{
    double transit = now - media;
    if (!isnan(OR(line)))
        return 0;
    if (now >= OR(bucket_end)) {
        if (!begin_second(output, transit, now))
            return 0;
    }
    else if (transit < OR(low))
        OR(low) = transit;
    else if (transit > OR(high))
        OR(high) = transit;
    double low = OR(low) < OR(low_before) ? OR(low) : OR(low_before);
    double high = OR(high) > OR(high_before) ? OR(high) : OR(high_before);
    return high - low <= OR(threshold);
}
