// SPDX-License-Identifier: GPL-2.0
/*
 * oldkernel [-r] COMMAND...: run a command on what it takes for a kernel without
 * sch_bpf. Its bpf() calls that name BPF_MAP_TYPE_RBTREE or BPF_PROG_TYPE_QDISC
 * are not made, and fail with EINVAL, which is what bpf() says to types that it
 * does not know (find_prog_type(), map_create()). It is done with ptrace, so
 * it is the same for every program, however it is linked; x86-64 only. With -r
 * the maps are known and the programs are not.
 */
#include <errno.h>
#include <signal.h>
#include <linux/bpf.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

/* Both commands begin with the type */
static bool is_unknown(pid_t pid, const struct user_regs_struct *regs, bool maps_known)
{
	__u32 type;

	if (regs->orig_rax != __NR_bpf)
		return false;
	type = ptrace(PTRACE_PEEKDATA, pid, regs->rsi, NULL);
	if (regs->rdi == BPF_MAP_CREATE)
		return type == BPF_MAP_TYPE_RBTREE && !maps_known;
	return regs->rdi == BPF_PROG_LOAD && type == BPF_PROG_TYPE_QDISC;
}

static void refuse(pid_t pid, struct user_regs_struct *regs)
{
	int status;

	regs->orig_rax = -1;
	ptrace(PTRACE_SETREGS, pid, NULL, regs);
	ptrace(PTRACE_SYSCALL, pid, NULL, NULL);
	waitpid(pid, &status, 0);
	ptrace(PTRACE_GETREGS, pid, NULL, regs);
	regs->rax = -EINVAL;
	ptrace(PTRACE_SETREGS, pid, NULL, regs);
}

int main(int argc, char **argv)
{
	bool maps_known = argc > 1 && !strcmp(argv[1], "-r"), entry = false;
	struct user_regs_struct regs;
	int status;
	pid_t pid;

	pid = fork();
	if (!pid) {
		ptrace(PTRACE_TRACEME, 0, NULL, NULL);
		execvp(argv[1 + maps_known], argv + 1 + maps_known);
		perror(argv[1 + maps_known]);
		_exit(127);
	}
	waitpid(pid, &status, 0);
	ptrace(PTRACE_SETOPTIONS, pid, NULL, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
	while (!WIFEXITED(status) && !WIFSIGNALED(status)) {
		if (WIFSTOPPED(status) && WSTOPSIG(status) == (SIGTRAP | 0x80)) {
			entry = !entry;
			ptrace(PTRACE_GETREGS, pid, NULL, &regs);
			if (entry && is_unknown(pid, &regs, maps_known)) {
				refuse(pid, &regs);
				entry = false;
			}
		}
		ptrace(PTRACE_SYSCALL, pid, NULL, NULL);
		waitpid(pid, &status, 0);
	}
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
