#include "config.h"

#include "proto.h"

bool limits_allow(const struct limits *limits, uint16_t pulse)
{
    return limits->min <= pulse && pulse <= limits->max;
}

static bool limits_valid(const struct limits *limits)
{
    return PULSE_MIN <= limits->min && limits->max <= PULSE_MAX && limits->min < limits->max &&
           limits_allow(limits, limits->neutral);
}

bool config_valid(const struct config *config)
{
    return (config->flags & ~CONFIG_RADIO) == 0 && limits_valid(&config->steering) && limits_valid(&config->throttle);
}

static const uint8_t *read_limits(struct limits *limits, const uint8_t *at)
{
    limits->neutral = get_u16(at);
    limits->min = get_u16(at + 2);
    limits->max = get_u16(at + 4);
    return at + 6;
}

static uint8_t *write_limits(const struct limits *limits, uint8_t *at)
{
    at = put_u16(at, limits->neutral);
    at = put_u16(at, limits->min);
    return put_u16(at, limits->max);
}

void config_read(struct config *config, const uint8_t *fields)
{
    config->flags = *fields++;
    fields = read_limits(&config->steering, fields);
    fields = read_limits(&config->throttle, fields);
    config->steering_slew = get_u16(fields);
    config->throttle_slew = get_u16(fields + 2);
}

uint8_t *config_write(const struct config *config, uint8_t *fields)
{
    *fields++ = config->flags;
    fields = write_limits(&config->steering, fields);
    fields = write_limits(&config->throttle, fields);
    fields = put_u16(fields, config->steering_slew);
    return put_u16(fields, config->throttle_slew);
}

void config_save(const struct config *config, uint8_t *record)
{
    record[0] = RECORD_MAGIC;
    uint8_t *end = config_write(config, record + 1);
    put_u16(end, proto_crc(record, (uint8_t)(end - record)));
}

bool config_load(struct config *config, const uint8_t *record)
{
    if (record[0] != RECORD_MAGIC || proto_crc(record, RECORD_BYTES - 2) != get_u16(record + RECORD_BYTES - 2))
        return false;
    config_read(config, record + 1);
    return config_valid(config); /* an older firmware may have had wider limits */
}
