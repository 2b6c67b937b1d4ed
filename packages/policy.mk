# SPDX-License-Identifier: GPL-2.0
# Build a policy of one's own, in any folder:
#
#	make -f /usr/share/sch-bpf/policy.mk NAME.bpf.o
#
# or `include` this in a makefile. `make install` as root puts NAME.bpf.o, with
# POLICY=NAME, where `tc ... bpf obj NAME` finds it.

# With :=, as MAKEFILE_LIST goes on to grow with what is included below
SCH_BPF_MK := $(lastword $(MAKEFILE_LIST))
BPF_CLANG ?= clang-19
BPF_STRIP ?= llvm-strip-19
BPF_CFLAGS ?= -target bpf -mcpu=v4 -g -O2 -Wall -Wno-missing-declarations
SCH_BPF_INCLUDE ?= $(abspath $(dir $(SCH_BPF_MK))../../include/sch-bpf)
POLICY_DIR ?= /usr/local/lib/sch-bpf

.DELETE_ON_ERROR:

%.bpf.o: %.bpf.c
	$(BPF_CLANG) $(BPF_CFLAGS) $(BPF_CPPFLAGS) -I$(SCH_BPF_INCLUDE) -MD -MP -MF $*.bpf.d -c $< -o $@

.PHONY: install
install: $(POLICY).bpf.o
	install -d $(DESTDIR)$(POLICY_DIR)
	$(BPF_STRIP) -g -o $(DESTDIR)$(POLICY_DIR)/$(<F) $<

-include $(wildcard *.bpf.d)
