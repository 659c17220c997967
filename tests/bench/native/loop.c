/*
 * The least that any supervisor does: posix_spawn(3) and waitpid(2) in a loop. What all others are compared with.
 *
 *   loop COUNT PROGRAM    runs COUNT children `PROGRAM NAME`, starts again whichever ends; TERM: ends them all and itself
 */

#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static volatile sig_atomic_t stopping;

static void
stop(int number)
{
	(void)number;
	stopping = 1;
}

static pid_t
start(char *program, int number)
{
	char name[16], *words[] = {program, name, NULL};
	pid_t pid;

	snprintf(name, sizeof(name), "g%04d", number);
	if (posix_spawn(&pid, program, NULL, NULL, words, environ) != 0)
		exit(71);
	return pid;
}

int
main(int argc, char **argv)
{
	int count = argc == 3 ? atoi(argv[1]) : 0;
	pid_t *pids = calloc((size_t)count + 1, sizeof(*pids)), pid;
	struct sigaction action = {.sa_handler = stop};

	if (count <= 0 || pids == NULL)
		return 64;
	sigaction(SIGTERM, &action, NULL);
	for (int i = 0; i < count; i++)
		pids[i] = start(argv[2], i);
	while (!stopping) {
		pid = wait(NULL);
		for (int i = 0; pid > 0 && i < count; i++)
			if (pids[i] == pid) {
				pids[i] = start(argv[2], i);
				break;
			}
	}
	for (int i = 0; i < count; i++)
		kill(pids[i], SIGTERM);
	while (wait(NULL) > 0)
		;
	return 0;
}
