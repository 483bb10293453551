/* The compiled firmware in simavr as a board on a serial port, in real time: bytes go to and from a pseudo-terminal, and
 * every pulse of the pins is printed. Whoever opens the port finds what the real board would give, DTR reset included.
 *
 *   ptysim ELF LINK [BOOT_MS]
 *
 * LINK becomes a symbolic link to the pseudo-terminal. With BOOT_MS, opening the port resets the chip, which then is in its
 * bootloader for so long: no bytes, no pulses.
 *
 * Lines on stdout, times in seconds of CLOCK_MONOTONIC (Python's time.monotonic()):
 *   ready                        the link is there
 *   pulse T steering|throttle US a finished pulse, T is its rising edge; a pulse that a reset cut short says "cut" after US
 *   open T | closed T            somebody has the port open, or has closed it
 *   watchdog T                   the watchdog has reset the chip (seen at most half a millisecond later)
 *   lag T MS                     the simulation was so late, by more than 5 ms; the chip's time stands still for so long, so
 *                                that it sees no silence that the host did not keep
 *   cpu T SECONDS                once a second: processor time used so far
 *   done T COMMAND               a line from stdin was obeyed
 * Lines on stdin: unplug, plug, reset (the pin), power (off and on), hang loop, hang interrupt, supply MILLIVOLTS,
 * corrupt PERCENT (of the bytes, both ways), quit. The end of stdin is quit: it does not outlive who started it.
 * A reader of stdout that is too slow loses lines; time does not wait. */
#define _GNU_SOURCE
#include "lockstep.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

enum { CYCLES_PER_US = 16, SLICE_US = 500, MANY = 256 };
static const double LAG_SHOWN_S = 0.005;

static struct sim *sim;
static const char *link_path;
static int master = -1;
static double origin_s; /* when cycle 0 would have been */
static double boot_s = -1.0, boot_end_s;
static bool was_open;
static int corrupt_percent;
static uint32_t watchdogs;

static double now_s(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static double at_s(uint64_t cycle)
{
    return origin_s + 1e-6 * (double)cycle / CYCLES_PER_US;
}

static void say(const char *format, ...)
{
    char line[256];
    va_list list;
    va_start(list, format);
    int size = vsnprintf(line, sizeof line, format, list);
    va_end(list);
    if (write(STDOUT_FILENO, line, (size_t)size) < 0 && errno == EPIPE)
        exit(0);
}

/* --- the port ---------------------------------------------------------------------------------------------------- */

static void unplug(void)
{
    if (master >= 0)
        close(master);
    master = -1;
    was_open = false;
    unlink(link_path);
}

static void plug(void)
{
    unplug();
    master = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    const char *name;
    if (master < 0 || grantpt(master) || unlockpt(master) || (name = ptsname(master)) == NULL) {
        perror("ptysim: no pseudo-terminal");
        exit(1);
    }
    /* Raw before anybody opens it: else what comes first is echoed. Once closed, the master hangs up until it is opened. */
    int slave = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
    struct termios raw;
    if (slave < 0 || tcgetattr(slave, &raw)) {
        perror("ptysim: pseudo-terminal");
        exit(1);
    }
    cfmakeraw(&raw);
    tcsetattr(slave, TCSANOW, &raw);
    close(slave);
    char fresh[512];
    snprintf(fresh, sizeof fresh, "%s.new", link_path);
    unlink(fresh);
    if (symlink(name, fresh) || rename(fresh, link_path)) {
        perror(link_path);
        exit(1);
    }
}

static bool is_open(void)
{
    struct pollfd port = {.fd = master, .events = POLLIN};
    return master >= 0 && poll(&port, 1, 0) >= 0 && !(port.revents & POLLHUP);
}

static void corrupt(uint8_t *bytes, size_t size)
{
    for (size_t index = 0; index < size; index++)
        if (rand() % 100 < corrupt_percent)
            bytes[index] ^= (uint8_t)(1 + rand() % 255);
}

static void take_from_host(bool running)
{
    uint8_t bytes[MANY];
    ssize_t size;
    while (master >= 0 && (size = read(master, bytes, sizeof bytes)) > 0) {
        corrupt(bytes, (size_t)size);
        if (running)
            sim_send(sim, 0, bytes, (uint32_t)size);
    }
}

static void give_to_host(void)
{
    sim_byte taken[MANY];
    uint8_t bytes[MANY];
    uint32_t count;
    while ((count = sim_bytes(sim, taken, MANY)) > 0) {
        for (uint32_t index = 0; index < count; index++)
            bytes[index] = (uint8_t)taken[index].byte;
        corrupt(bytes, count);
        if (was_open && master >= 0 && write(master, bytes, count) < 0 && errno != EAGAIN && errno != EIO)
            perror("ptysim: write");
    }
}

/* --- the chip ---------------------------------------------------------------------------------------------------- */

static void show_pulses(void)
{
    static const char *const names[SIM_OUTPUTS] = {"steering", "throttle"};
    sim_pulse pulses[MANY];
    uint32_t count;
    while ((count = sim_pulses(sim, pulses, MANY)) > 0)
        for (uint32_t index = 0; index < count; index++)
            say("pulse %.6f %s %.4f%s\n", at_s(pulses[index].rise), names[pulses[index].channel],
                (double)(pulses[index].fall - pulses[index].rise) / CYCLES_PER_US, pulses[index].cut ? " cut" : "");
}

/* Time goes on while the chip does not run. */
static void skip_to(double time_s)
{
    origin_s = time_s - 1e-6 * (double)sim_now(sim) / CYCLES_PER_US;
}

static void tell_cpu(double time_s)
{
    static double next_s;
    if (time_s < next_s)
        return;
    next_s = time_s + 1.0;
    struct timespec used;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    say("cpu %.6f %.3f\n", time_s, (double)used.tv_sec + 1e-9 * (double)used.tv_nsec);
}

static void watch_port(double time_s)
{
    bool open_now = is_open();
    if (open_now == was_open)
        return;
    was_open = open_now;
    say("%s %.6f\n", open_now ? "open" : "closed", time_s);
    if (open_now && boot_s >= 0.0) {
        sim_pull_reset(sim);
        boot_end_s = time_s + boot_s;
    }
}

static void run_to(double time_s)
{
    double lag_s = time_s - at_s(sim_now(sim)) - 1e-6 * SLICE_US;
    /* This process was not let run, or the machine is too slow for it: the chip's time stood still as well. To catch up
     * would show the chip a silence of the host, whose bytes all came at once, that never was. */
    if (lag_s > LAG_SHOWN_S) {
        say("lag %.6f %.1f\n", time_s, 1e3 * lag_s);
        skip_to(time_s - 1e-6 * SLICE_US);
    }
    while (at_s(sim_now(sim)) < time_s) {
        if (sim_run(sim, sim_now(sim) + SLICE_US * CYCLES_PER_US)) {
            fprintf(stderr, "ptysim: the chip has crashed\n");
            exit(1);
        }
        give_to_host();
        if (sim_watchdog_resets(sim) != watchdogs) {
            watchdogs = sim_watchdog_resets(sim);
            say("watchdog %.6f\n", at_s(sim_now(sim)));
        }
    }
    show_pulses();
}

/* --- orders ------------------------------------------------------------------------------------------------------ */

static bool obey(char *order)
{
    char *value = strchr(order, ' ');
    if (value != NULL)
        *value++ = '\0';
    if (strcmp(order, "quit") == 0)
        exit(0);
    if (strcmp(order, "unplug") == 0)
        unplug();
    else if (strcmp(order, "plug") == 0)
        plug();
    else if (strcmp(order, "reset") == 0)
        sim_pull_reset(sim);
    else if (strcmp(order, "power") == 0)
        sim_power_cycle(sim);
    else if (strcmp(order, "hang") == 0 && value != NULL)
        return sim_hang(sim, strcmp(value, "loop") == 0 ? SIM_HANG_LOOP : SIM_HANG_INTERRUPT) == 0;
    else if (strcmp(order, "supply") == 0 && value != NULL)
        sim_supply(sim, (uint32_t)atoi(value));
    else if (strcmp(order, "corrupt") == 0 && value != NULL)
        corrupt_percent = atoi(value);
    else
        return false;
    return true;
}

static void take_orders(void)
{
    static char line[128];
    static size_t used;
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    while (poll(&input, 1, 0) > 0) {
        char letter;
        if (read(STDIN_FILENO, &letter, 1) <= 0)
            exit(0);
        if (letter != '\n') {
            if (used < sizeof line - 1)
                line[used++] = letter;
            continue;
        }
        line[used] = '\0';
        used = 0;
        char order[sizeof line];
        strcpy(order, line);
        bool known = obey(order);
        say("%s %.6f %s\n", known ? "done" : "unknown", now_s(), line);
    }
}

static void ended(int number)
{
    (void)number;
    unlink(link_path);
    _exit(0);
}

int main(int count, char **words)
{
    if (count < 3 || count > 4) {
        fprintf(stderr, "usage: ptysim ELF LINK [BOOT_MS]\n");
        return 2;
    }
    sim = sim_open(words[1]);
    if (sim == NULL)
        return 1;
    link_path = words[2];
    if (count == 4)
        boot_s = 1e-3 * atof(words[3]);
    fcntl(STDOUT_FILENO, F_SETFL, fcntl(STDOUT_FILENO, F_GETFL) | O_NONBLOCK);
    /* On time, where the system allows it, and before the gate, which has 20: a chip waits for nobody. A tenth of a core. */
    sched_setscheduler(0, SCHED_FIFO, &(struct sched_param){.sched_priority = 30});
    signal(SIGPIPE, SIG_IGN);
    plug();
    atexit(unplug);
    signal(SIGTERM, ended);
    signal(SIGINT, ended);
    skip_to(now_s());
    say("ready\n");
    for (;;) {
        double time_s = now_s();
        take_orders();
        tell_cpu(time_s);
        watch_port(time_s);
        bool running = time_s >= boot_end_s;
        take_from_host(running);
        if (running)
            run_to(time_s);
        else
            skip_to(time_s);
        struct timespec nap = {.tv_nsec = SLICE_US * 1000};
        nanosleep(&nap, NULL);
    }
}
