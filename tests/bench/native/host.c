/*
 * A host that costs nothing: every program that bhyved calls, as one, which does what its name says and ends within a millisecond.
 *
 *   bhyve -k FILE NAME    makes its node, shows the title, says in the FIFO `report` that it runs; USR1: exit 0, TERM: exit 1
 *   child NAME            the same without node and title, for the other supervisors
 *   ps                    the processes of this host, out of /proc (so it is Linux only)
 *   bhyvectl --vm=N WHAT  --destroy takes the node away
 *   sysctl, sysrc, kldstat, kldload, ifconfig
 *
 * The root is the directory above the one it is called in.
 */

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define NAME_BYTES 24

struct report {
	uint64_t at_ns; /* CLOCK_MONOTONIC */
	uint32_t pid;
	uint32_t unused;
	char name[NAME_BYTES];
};

static char root[PATH_MAX];

static void
find_root(void)
{
	char self[PATH_MAX];
	ssize_t length = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (length <= 0)
		exit(71);
	self[length] = '\0';
	snprintf(root, sizeof(root), "%s", dirname(dirname(self)));
}

static void
tell(const char *name)
{
	struct report report = {0};
	struct timespec now;
	char path[PATH_MAX + 16];
	int fd;

	clock_gettime(CLOCK_MONOTONIC, &now);
	report.at_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
	report.pid = (uint32_t)getpid();
	strncpy(report.name, name, NAME_BYTES - 1);
	snprintf(path, sizeof(path), "%s/report", root);
	fd = open(path, O_WRONLY | O_NONBLOCK);
	if (fd >= 0) {
		if (write(fd, &report, sizeof(report)) != sizeof(report))
			_exit(71);
		close(fd);
	}
}

static void
reboot(int number)
{
	(void)number;
	_exit(0);
}

static void
power_off(int number)
{
	(void)number;
	_exit(1);
}

static int
run(int argc, char **argv, int is_guest)
{
	char *name = strdup(argv[argc - 1]), path[PATH_MAX + 64];
	char *first = argv[0], *last = argv[argc - 1] + strlen(argv[argc - 1]);
	int fd;

	if (strlen(argv[argc - 1]) == 0)
		return 64;
	signal(SIGUSR1, reboot);
	signal(SIGTERM, power_off);
	tell(name);
	if (is_guest) {
		snprintf(path, sizeof(path), "%s/dev/vmm/%s", root, name);
		fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
		if (fd < 0)
			return 71;
		close(fd);
		memset(first, 0, (size_t)(last - first));
		snprintf(first, (size_t)(last - first), "bhyve: %s", name);
	}
	for (;;)
		pause();
}

/* Titles have no path in them: other hosts' guests are told by the program. */
static int
is_ours(const char *pid)
{
	char link[64], program[PATH_MAX];
	ssize_t length;

	snprintf(link, sizeof(link), "/proc/%.20s/exe", pid);
	length = readlink(link, program, sizeof(program) - 1);
	return length > 0 && strncmp(program, root, strlen(root)) == 0;
}

static int
show_processes(void)
{
	static char text[16384];
	char path[64];
	struct dirent *entry;
	DIR *proc = opendir("/proc");

	if (proc == NULL)
		return 1;
	puts("  PID UID JID COMMAND");
	while ((entry = readdir(proc)) != NULL) {
		ssize_t length;
		int fd;

		if (!isdigit((unsigned char)entry->d_name[0]))
			continue;
		snprintf(path, sizeof(path), "/proc/%.20s/cmdline", entry->d_name);
		fd = open(path, O_RDONLY);
		if (fd < 0)
			continue;
		length = read(fd, text, sizeof(text) - 1);
		close(fd);
		while (length > 0 && text[length - 1] == '\0')
			length--;
		if (length <= 0)
			continue;
		for (ssize_t i = 0; i < length; i++)
			if (text[i] == '\0' || text[i] == '\n')
				text[i] = ' ';
		text[length] = '\0';
		if (strncmp(text, "bhyve: ", 7) == 0 ? is_ours(entry->d_name) : strstr(text, root) != NULL)
			printf("%5s 0 0 %s\n", entry->d_name, text);
	}
	closedir(proc);
	return 0;
}

static int
control(int argc, char **argv)
{
	char path[PATH_MAX + 64];

	if (argc < 3 || strncmp(argv[1], "--vm=", 5) != 0)
		return 1;
	snprintf(path, sizeof(path), "%s/dev/vmm/%s", root, argv[1] + 5);
	return strcmp(argv[2], "--destroy") == 0 && unlink(path) != 0;
}

static int
say_variable(const char *name)
{
	static const char *const known[][2] = {
		{"kern.osreldate", "1500068"},
		{"hw.machine_arch", "amd64"},
		{"kern.hostuuid", "00000000-0000-0000-0000-000000000001"},
		{"kern.init_shutdown_timeout", "120"},
		{"rcshutdown_timeout", "90"},
	};

	if (strcmp(name, "kern.boot_id") == 0)
		return fwrite("bench's boot id.", 1, 16, stdout) != 16;
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (strcmp(name, known[i][0]) == 0)
			return puts(known[i][1]) < 0;
	return 1;
}

int
main(int argc, char **argv)
{
	const char *called = basename(strdup(argv[0]));

	find_root();
	if (strcmp(called, "bhyve") == 0)
		return run(argc, argv, 1);
	if (strcmp(called, "child") == 0)
		return run(argc, argv, 0);
	if (strcmp(called, "ps") == 0)
		return show_processes();
	if (strcmp(called, "bhyvectl") == 0)
		return control(argc, argv);
	if (strcmp(called, "sysctl") == 0 || strcmp(called, "sysrc") == 0)
		return say_variable(argv[argc - 1]);
	return 0; /* kldstat, kldload: it is loaded; ifconfig: there are none */
}
