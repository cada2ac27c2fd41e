// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
// What it costs on this machine to wake a thread that sleeps on an eventfd, and nothing else: `wake WAKER_CPU SLEEPER_CPU RATE COUNT`.
//
// One thread sleeps in poll(2) on its CPU; another one, awake on its own, writes to the eventfd so many times a second. Both run before
// everything else on the machine, as the generator and a switch's polling thread do. Prints one line of JSON: from before the
// write to behind the poll, in microseconds.
#define _GNU_SOURCE
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

enum { COUNT_MAX = 100000, TIMEOUT_MS = 5000 };
static int fd, sleeper_cpu, count;
static volatile uint64_t written_ns;
static volatile int awake;
static uint64_t took_ns[COUNT_MAX];

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ull + now.tv_nsec;
}

static void first_on(int cpu)
{
	struct sched_param priority = {.sched_priority = 1};
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	pthread_setaffinity_np(pthread_self(), sizeof one, &one);
	pthread_setschedparam(pthread_self(), SCHED_RR, &priority);
}

static void *sleeper(void *none)
{
	first_on(sleeper_cpu);
	for (int i = 0; i < count; i++) {
		struct pollfd wait = {.fd = fd, .events = POLLIN};
		uint64_t value;

		if (poll(&wait, 1, TIMEOUT_MS) != 1)
			exit(1);
		took_ns[i] = now_ns() - written_ns;
		if (read(fd, &value, sizeof value) != sizeof value)
			exit(1);
		awake = 1;
	}
	return none;
}

static int shorter(const void *one, const void *other)
{
	uint64_t a = *(const uint64_t *)one, b = *(const uint64_t *)other;

	return (a > b) - (a < b);
}

int main(int argc, char **argv)
{
	const uint64_t one = 1;
	uint64_t period_ns;
	pthread_t thread;

	if (argc != 5 || atoi(argv[3]) < 1 || atoi(argv[4]) < 1 || atoi(argv[4]) > COUNT_MAX)
		return fprintf(stderr, "usage: wake WAKER_CPU SLEEPER_CPU RATE COUNT\n"), 2;
	sleeper_cpu = atoi(argv[2]);
	period_ns = 1000000000ull / atoi(argv[3]);
	count = atoi(argv[4]);
	fd = eventfd(0, EFD_CLOEXEC);
	if (fd < 0 || pthread_create(&thread, NULL, sleeper, NULL))
		return perror("wake"), 1;
	first_on(atoi(argv[1]));
	for (int i = 0; i < count; i++) {
		uint64_t start = now_ns();

		while (now_ns() - start < period_ns)
			;
		awake = 0;
		written_ns = now_ns();
		if (write(fd, &one, sizeof one) != sizeof one)
			return perror("wake"), 1;
		while (!awake)
			;
	}
	pthread_join(thread, NULL);
	qsort(took_ns, count, sizeof *took_ns, shorter);
	printf("{\"p50_us\":%.2f,\"p99_us\":%.2f}\n", took_ns[count / 2] / 1e3, took_ns[count * 99 / 100] / 1e3);
	return 0;
}
