# SPDX-License-Identifier: GPL-2.0
# How a BPF program is compiled: make policies/NAME.bpf.o calls this. Warnings are errors in
# ours; somebody else's compiler or headers may know more of them.

BPF_CLANG ?= clang-19
BPF_CFLAGS = -target bpf -mcpu=v4 -g -O2 -Wall $(if $(filter policies/% selftests/% build/selftests/% bench/% demo/%,$@),-Werror) -Wno-missing-declarations
BPF_CPPFLAGS := -Ibuild/include -Ibuild/tools/include
dep = build/deps/$(subst /,_,$@).d

%.bpf.o: %.bpf.c
	@mkdir -p build/deps
	@echo '  BPF $@'
	@$(BPF_CLANG) $(BPF_CFLAGS) $(BPF_CPPFLAGS) -MD -MP -MF $(dep) -MT $@ -c $< -o $@

-include $(wildcard build/deps/*.d)
