// SPDX-License-Identifier: GPL-2.0
/* sch-bpf-watch: have what sch-bpf(8) attached to a device attached again when another
 * program replaces it
 *
 * The kernel tells which root qdisc has changed. Whether that was another program, and what
 * is to be done, `sch-bpf repair DEV` decides. What was changed before this listened, and
 * what the kernel could not tell, is found by asking for all devices.
 */
#include <dirent.h>
#include <errno.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define STATE		"/run/sch-bpf/"		/* has a file for each device that was attached to */

extern char **environ;

static void __attribute__((noreturn)) die(const char *what)
{
	fprintf(stderr, "sch-bpf-watch: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* What it cannot do it says itself */
static void repair(char *dev)
{
	char *argv[] = { "sch-bpf", "repair", dev, NULL };
	pid_t pid;

	errno = posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ);
	if (errno)
		die(argv[0]);
	while (waitpid(pid, NULL, 0) < 0) {
		if (errno != EINTR)
			die("waitpid");
	}
}

static void repair_all(void)
{
	struct dirent *entry;
	DIR *dir;

	dir = opendir(STATE);
	if (!dir && errno == ENOENT)
		return;
	if (!dir)
		die(STATE);
	while (errno = 0, (entry = readdir(dir))) {
		if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
			repair(entry->d_name);
	}
	if (errno)
		die(STATE);
	closedir(dir);
}

/* The device whose root qdisc this tells of, or 0 */
static int changed_device(const struct nlmsghdr *h)
{
	const struct tcmsg *t = NLMSG_DATA(h);

	if ((h->nlmsg_type != RTM_NEWQDISC && h->nlmsg_type != RTM_DELQDISC) ||
	    h->nlmsg_len < NLMSG_LENGTH(sizeof(*t)) || t->tcm_parent != TC_H_ROOT)
		return 0;
	return t->tcm_ifindex;
}

static void repair_changed(int ifindex)
{
	char path[sizeof(STATE) + IF_NAMESIZE], dev[IF_NAMESIZE];

	if (!if_indextoname(ifindex, dev))
		return;
	snprintf(path, sizeof(path), STATE "%s", dev);
	if (!access(path, F_OK))
		repair(dev);
}

/* A replacement is told at once by two messages, of the old qdisc and of the new. It is one. */
static void read_messages(void *buf, unsigned int len)
{
	struct nlmsghdr *h;
	int ifindex, last = 0;

	for (h = buf; NLMSG_OK(h, len); h = NLMSG_NEXT(h, len)) {
		ifindex = changed_device(h);
		if (ifindex && ifindex != last)
			repair_changed(ifindex);
		last = ifindex;
	}
}

int main(void)
{
	struct sockaddr_nl address = { .nl_family = AF_NETLINK, .nl_groups = RTMGRP_TC };
	static char buf[1 << 16];
	int sock, len;

	sock = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	if (sock < 0 || bind(sock, (struct sockaddr *)&address, sizeof(address)))
		die("netlink");
	repair_all();
	for (;;) {
		len = recv(sock, buf, sizeof(buf), 0);
		if (len < 0 && errno == ENOBUFS)
			repair_all();
		else if (len < 0 && errno != EINTR)
			die("netlink");
		else if (len > 0)
			read_messages(buf, len);
	}
}
