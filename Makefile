# SPDX-License-Identifier: GPL-2.0
# The commands of sch_bpf. Each does its own set-up; what is built is checked by
# content in a second or two. `make help` lists them.

.PHONY: help kernel kernel-debug kernel-kcsan kernel-rt kernel-upstream kernel-base tools demo check check-debug check-kcsan check-rt check-upstream mutants bench series lint deb check-packages clean FORCE

help:
	@echo 'make demo               boot, pace real TCP and UDP on a NIC to two rates, measure'
	@echo 'make check [TEST=NAME]  all tests, or one, in a virtual machine'
	@echo 'make check-debug        the same on a kernel with KASAN, lockdep and kmemleak'
	@echo 'make check-kcsan        the same on a kernel that reports data races (KCSAN)'
	@echo 'make check-rt           the same on a kernel with PREEMPT_RT and lockdep'
	@echo 'make mutants            plant bugs, one after the other: the tests must notice each'
	@echo 'make check-upstream     the kernel'"'"'s own tests of maps, verifier and tc, here and on the unpatched kernel'
	@echo 'make bench              what a packet costs, beside every native qdisc (build/bench)'
	@echo 'make policies/NAME.bpf.o  build a policy; a path of your own works too'
	@echo 'make kernel tools       the kernel; libbpf, bpftool, tc (build/tools/bin)'
	@echo 'make kernel-debug       the kernel for check-debug'
	@echo 'make kernel-upstream kernel-base   the kernels for check-upstream, this one and the unpatched'
	@echo 'make deb                Debian packages of tc plug-in, policies, tools, headers, in build/deb'
	@echo 'make deb FLAVOUR=...    and of a kernel: server, local, or the NAME of a configuration of Debian'"'"'s'
	@echo 'make check-packages     install them in a Debian that boots with systemd, and try them'
	@echo 'make series [BUILD=1]   the kernel part as series to be mailed, checked; build after each patch'
	@echo 'make lint [GATE=...]    static checks of kernel code, scripts, man pages'
	@echo 'make clean              remove build/ (downloads and ccache stay)'
	@echo 'vm/run COMMAND          run a command on this kernel; vm/run --help'

kernel kernel-debug kernel-kcsan kernel-rt kernel-upstream kernel-base tools:
	@scripts/build $@

# The set-up first, then a make of its own, so that it sees the new headers
%.bpf.o: FORCE tools
	@$(MAKE) -s --no-print-directory -f scripts/bpf.mk $@

demo: kernel tools
	@demo/run

check: kernel tools
	@selftests/run $(TEST)

check-debug: kernel-debug tools
	@selftests/run --debug $(TEST)

check-kcsan: kernel-kcsan tools
	@selftests/run --kcsan $(TEST)

check-rt: kernel-rt tools
	@selftests/run --rt $(TEST)

mutants: kernel tools
	@selftests/run --build
	@selftests/attack/mutants/run $(MUTANT)

check-upstream: kernel-upstream kernel-base tools
	@selftests/upstream/run

deb: kernel tools
	@packages/build
	@[ -z "$(FLAVOUR)" ] || packages/kernel $(FLAVOUR)
	@ls -sh1 build/deb/*.deb

check-packages: deb
	@packages/check

bench:
	@scripts/prepare packages bench
	@bench/run
	@bench/report

series:
	@scripts/series --check $(if $(BUILD),--build)

lint:
	@scripts/lint $(GATE)

clean:
	rm -rf build
