/* The media time of a plain run: rtp/timeline.py. */

#include "wake.h"

static const double MIN_STEP = 0.001, FORWARD_JUMP = 2.0, BACKWARD_JUMP = 1.0;
static const double WINDOW = 4.0, EARLY_LIMIT = 0.1, LATE_LIMIT = 1.0, DRIFT_TIME = 20.0, MAX_DRIFT = 500e-6;
static const double EARLY_TIME = 2.0, MAX_EARLY = 0.01, SKEW_TIME = 2.0, MAX_SKEW_RATE = 0.05;

/* rtp/timeline.py, _SourceClock.observe */
static void
observe(Work *work, double transit, double now)
{
    if (now >= R(window_end)) {
        if (!isnan(R(previous))) {
            double lowest = R(current) < R(previous) ? R(current) : R(previous);
            if (lowest - R(offset) > LATE_LIMIT)
                R(offset) = lowest;
        }
        R(previous) = R(current);
        R(current) = transit;
        R(window_end) = now + WINDOW;
    }
    else if (transit < R(current))
        R(current) = transit;
    double lowest = isnan(R(previous)) || R(current) < R(previous) ? R(current) : R(previous);
    double error = lowest - R(offset), elapsed = now - R(adjusted);
    R(adjusted) = now;
    double spread = 1.0 < elapsed ? 1.0 : elapsed;
    if (error < -EARLY_LIMIT)
        R(offset) += error;
    else if (error < 0) {
        double early = error / EARLY_TIME;
        R(offset) += (-MAX_EARLY > early ? -MAX_EARLY : early) * spread;
    }
    else {
        double late = error / DRIFT_TIME;
        R(offset) += (MAX_DRIFT < late ? MAX_DRIFT : late) * spread;
    }
}

/* Timeline.map; 0 where a mapping would have to be started. */
int
map_time(Work *work, Run *run, double now)
{
    if (run->sent_timestamp != I(timestamp)) {
        int64_t ticks = (run->sent_timestamp - I(timestamp)) & 0xFFFFFFFF;
        if (I(rate) < 1)
            return 0;
        double step = (double)(ticks & 0x80000000 ? ticks - 0x100000000 : ticks) / (double)I(rate);
        double elapsed = now - R(arrival);
        if (step > elapsed + FORWARD_JUMP || step < -BACKWARD_JUMP)
            return 0;
        I(timestamp) = run->sent_timestamp;
        R(arrival) = now;
        R(source) += step;
        double source = isnan(R(ntp_offset)) ? R(source) : R(source) + R(ntp_offset);
        observe(work, now - source, now);
        if (R(skew) != 0) { /* _reduce_skew */
            double limit = MAX_SKEW_RATE * elapsed, part = elapsed / SKEW_TIME;
            double less = R(skew) * (part < 1.0 ? part : 1.0);
            less = less < limit ? less : limit;
            R(skew) -= less > -limit ? less : -limit;
            if (fabs(R(skew)) < 1e-6)
                R(skew) = 0.0;
        }
        double place = source + R(offset) + R(skew), least = R(floor) + MIN_STEP;
        R(media) = R(floor) = place > least ? place : least;
    }
    run->media = R(media);
    return 1;
}
