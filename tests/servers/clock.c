/* A wall clock that a test moves while a program runs; see clock.py.
 *
 * Preloaded, it adds an offset to what a program reads from its wall clocks. The offset, in
 * nanoseconds, is the first eight octets of the file SMTPFEEDS_TEST_CLOCK, which is mapped: each
 * call sees its newest value. Monotonic and CPU clocks are left alone, and so are waits: an
 * absolute deadline that a program computes from its wall clock is given to the kernel as the
 * time that the kernel knows. Times of files come from the kernel and do not move.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
#include <dlfcn.h>

#define SECOND 1000000000LL

static const volatile int64_t *shared;

__attribute__((constructor)) static void map_offset(void)
{
	const char *path = getenv("SMTPFEEDS_TEST_CLOCK");
	int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;

	if (file < 0)
		abort(); /* a test that moves no clock must not pass */
	void *page = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
	close(file);
	if (page == MAP_FAILED)
		abort();
	shared = page;
}

static int64_t offset(void)
{
	return shared ? *shared : 0;
}

static void move(struct timespec *at, int64_t by)
{
	int64_t seconds = at->tv_sec + by / SECOND, rest = at->tv_nsec + by % SECOND;

	if (rest < 0) {
		rest += SECOND;
		seconds--;
	} else if (rest >= SECOND) {
		rest -= SECOND;
		seconds++;
	}
	at->tv_sec = seconds;
	at->tv_nsec = rest;
}

static int is_wall_clock(clockid_t clock)
{
	return clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE || clock == CLOCK_TAI;
}

int clock_gettime(clockid_t clock, struct timespec *at)
{
	static int (*next)(clockid_t, struct timespec *);

	if (!next)
		next = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
	int failed = next ? next(clock, at) : (int)syscall(SYS_clock_gettime, clock, at);
	if (!failed && is_wall_clock(clock))
		move(at, offset());
	return failed;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone)
{
	struct timespec now;

	(void)zone;
	if (clock_gettime(CLOCK_REALTIME, &now))
		return -1;
	at->tv_sec = now.tv_sec;
	at->tv_usec = now.tv_nsec / 1000;
	return 0;
}

time_t time(time_t *at)
{
	struct timespec now;

	if (clock_gettime(CLOCK_REALTIME, &now))
		return -1;
	if (at)
		*at = now.tv_sec;
	return now.tv_sec;
}

int timespec_get(struct timespec *at, int base)
{
	return base == TIME_UTC && !clock_gettime(CLOCK_REALTIME, at) ? base : 0;
}

int clock_nanosleep(clockid_t clock, int flags, const struct timespec *until, struct timespec *left)
{
	static int (*next)(clockid_t, int, const struct timespec *, struct timespec *);
	struct timespec real = *until;

	if (!next)
		next = (int (*)(clockid_t, int, const struct timespec *, struct timespec *))dlsym(
			RTLD_NEXT, "clock_nanosleep");
	if ((flags & TIMER_ABSTIME) && is_wall_clock(clock))
		move(&real, -offset());
	return next(clock, flags, &real, left);
}

int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict until)
{
	static int (*next)(sem_t *, const struct timespec *);
	struct timespec real = *until;

	if (!next)
		next = (int (*)(sem_t *, const struct timespec *))dlsym(RTLD_NEXT, "sem_timedwait");
	move(&real, -offset());
	return next(semaphore, &real);
}
