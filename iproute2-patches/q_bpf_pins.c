// SPDX-License-Identifier: GPL-2.0
/*
 * q_bpf_pins.c	Folders in a bpffs, and what is pinned there
 */

#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <linux/magic.h>

#include "q_bpf.h"

const char *bpffs_path(void)
{
	const char *path = getenv(BPFFS_ENV);

	return path ? path : BPFFS;
}

int make_dir(const char *path)
{
	if (!mkdir(path, 0700) || errno == EEXIST)
		return 0;
	complain("%s: %s", path, strerror(errno));
	return -1;
}

/*
 * "tc -n" and "ip netns exec" work in a mount namespace of their own, whose /sys is new
 * and has no bpffs. What is pinned in one that is mounted there nobody else sees, and it
 * is gone with the last process in the namespace. The first process is asked what the
 * system's bpffs is, or if that is not allowed, the one that has called us.
 */
void warn_of_private_bpffs(const char *bpffs)
{
	const pid_t pids[] = { 1, getppid() };
	struct stat here, there;
	static bool warned;
	char path[PATH_MAX];
	int i;

	for (i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "/proc/%d/root%s", pids[i], bpffs);
		if (!stat(path, &there))
			break;
	}
	if (i == 2 || warned || stat(bpffs, &here) || here.st_dev == there.st_dev)
		return;
	warned = true;
	complain("warning: %s is not that of the system, but of \"tc -n\" or \"ip netns exec\" alone:\n"
		 "pins of others are not there, and pins made there are gone when the command ends.\n"
		 "Mount a bpffs outside of /sys, and say where in " BPFFS_ENV ":\n"
		 "  mkdir -p /run/bpf && mount -t bpf bpf /run/bpf && export " BPFFS_ENV "=/run/bpf",
		 bpffs);
}

static int mount_bpffs(void)
{
	const char *bpffs = bpffs_path();
	struct statfs st;

	if (statfs(bpffs, &st)) {
		complain("%s, for pinning: %s", bpffs, strerror(errno));
		return -1;
	}
	if (st.f_type != BPF_FS_MAGIC && mount("bpf", bpffs, "bpf", 0, "mode=0700")) {
		complain("cannot mount bpffs on %s, for pinning: %s", bpffs, strerror(errno));
		return -1;
	}
	warn_of_private_bpffs(bpffs);
	return 0;
}

/* The folder of maps that are pinned by name */
int make_globals_dir(void)
{
	char path[PATH_MAX];

	if (mount_bpffs())
		return -1;
	snprintf(path, sizeof(path), "%s/%s", bpffs_path(), PIN_DIR);
	if (make_dir(path))
		return -1;
	snprintf(path, sizeof(path), "%s/%s/%s", bpffs_path(), PIN_DIR, PIN_SUBDIR);
	return make_dir(path);
}

/* The folder of "pin", looked at before anything is done that would be hard to undo */
int make_pin_dir(const char *path, bool *is_new)
{
	struct statfs st;

	*is_new = access(path, F_OK);
	if (mount_bpffs() || make_dir(path))
		return -1;
	if (!statfs(path, &st) && st.f_type == BPF_FS_MAGIC)
		return 0;
	complain("pin %s: not a folder in a bpffs, such as %s", path, bpffs_path());
	if (*is_new)
		rmdir(path);
	return -1;
}

/* A pin of the same name belongs to what the qdisc had before */
static int pin(int fd, const char *dir, const char *name)
{
	char path[PATH_MAX];
	char *c;

	if (snprintf(path, sizeof(path), "%s/%s", dir, name) >= (int)sizeof(path)) {
		complain("pin %s: too long", dir);
		return -1;
	}
	/* a bpffs has no names with dots, as .data.param */
	for (c = path + strlen(dir); *c; c++) {
		if (*c == '.')
			*c = '_';
	}
	unlink(path);
	if (!bpf_obj_pin(fd, path))
		return 0;
	complain("pin %s: %s", path, strerror(errno));
	return -1;
}

int pin_object(const struct bpf_object *obj, const char *dir)
{
	struct bpf_program *prog;
	struct bpf_map *map;
	int ret = 0;

	bpf_object__for_each_program(prog, obj) {
		if (bpf_program__fd(prog) >= 0)
			ret |= pin(bpf_program__fd(prog), dir, bpf_program__name(prog));
	}
	bpf_object__for_each_map(map, obj) {
		if (bpf_map__fd(map) >= 0)
			ret |= pin(bpf_map__fd(map), dir, bpf_map__name(map));
	}
	return ret;
}
