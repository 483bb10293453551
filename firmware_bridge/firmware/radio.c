#include "radio.h"

void radio_init(struct radio *radio, bool enabled)
{
    *radio = (struct radio){.enabled = enabled};
    for (uint8_t channel = 0; channel < RADIO_CHANNELS; channel++)
        radio->age_ms[channel] = RADIO_TIMEOUT_MS;
}

void radio_edge(struct radio *radio, enum radio_channel channel, bool high, uint16_t clock)
{
    /* Which pin changed is not known to the interrupt, so a channel may be shown again without an edge. */
    if (high == radio->high[channel])
        return;
    radio->high[channel] = high;
    if (high) {
        radio->rise[channel] = clock;
        return;
    }
    uint16_t width = clock >= radio->rise[channel] ? clock - radio->rise[channel]
                                                   : (uint16_t)(clock + FRAME_HALF_US - radio->rise[channel]);
    if (width < RADIO_MIN || width > RADIO_MAX)
        return;
    radio->pulse[channel] = width;
    radio->age_ms[channel] = 0;
    if (channel == RADIO_SWITCH && width > RADIO_ON)
        radio->switched = true;
    if (channel == RADIO_SWITCH && width < RADIO_HOST)
        radio->switched = false;
}

static bool lost(const struct radio *radio)
{
    for (uint8_t channel = 0; channel < RADIO_CHANNELS; channel++)
        if (radio->age_ms[channel] >= RADIO_TIMEOUT_MS)
            return true;
    return false;
}

void radio_tick(struct radio *radio)
{
    for (uint8_t channel = 0; channel < RADIO_CHANNELS; channel++)
        if (radio->age_ms[channel] < RADIO_TIMEOUT_MS)
            radio->age_ms[channel]++;
    if (lost(radio))
        radio->switched = true; /* when it is back, the person says first that the host may drive */
}

enum radio_state radio_state(const struct radio *radio)
{
    if (!radio->enabled)
        return RADIO_OFF;
    if (lost(radio))
        return RADIO_LOST;
    return radio->switched ? RADIO_OVERRIDE : RADIO_STANDBY;
}
