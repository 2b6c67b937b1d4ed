# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034 # the scripts use the variables
# Common to the scripts: where things are, errors, progress, the lock, and the
# git repository that is the kernel tree.

set -euo pipefail
shopt -s inherit_errexit
export LC_ALL=C

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
build=$top/build
linux=$build/linux
cache=${XDG_CACHE_HOME:-~/.cache}/sch_bpf
jobs=$(nproc)
# shellcheck source-path=SCRIPTDIR/.. source=BASE
. "$top/BASE"

say() { printf '%s\n' "$*" >&2; }
die() { say "${0##*/}: $*"; exit 1; }

# Everything that writes to build/ runs under one lock; children inherit it.
lock() {
	[ -z "${SCH_BPF_LOCKED:-}" ] || return 0
	mkdir -p "$build/log" "$cache" || die "cannot write to $build or $cache"
	exec 9>"$build/.lock"
	if ! flock -n 9; then
		say "another run is at work in $build; waiting for it"
		flock 9
	fi
	export SCH_BPF_LOCKED=1
}

# space NEEDED_MB DIR: one line now instead of a broken build in ten minutes
space() {
	local free
	free=$(($(stat -fc '%a * %S / 1048576' "$2")))
	((free >= $1)) || die "disk full: $free MB are free in $2, $1 MB are needed;" \
		"free some (make clean removes build/, rm -r '$cache' the downloads)"
}

# --- progress ----------------------------------------------------------------

# How far a step is, is known by the lines that it prints, or by what apt says of itself.
# scripts/progress has for each long step how many lines it has printed when each
# twentieth of its time has gone; a line is not worth the same time everywhere, linking a
# kernel prints few. build/log/STEP.progress is the same of the last whole run here: its
# last number, of all lines, is taken first.

# twentieths NAME FILE: the numbers to go by; nothing if there are none
twentieths() {
	local -a of learned
	local i
	read -ra of < <(sed -n "s|^$1: ||p" "$top/scripts/progress" && cat "$2" 2>/dev/null) || return 0
	read -ra learned 2>/dev/null <"$2" || learned=("${of[@]}")
	for i in {0..19}; do echo $((of[i] * learned[19] / of[19])); done
}

# duration SECONDS
duration() {
	if (($1 < 90)); then echo "$1 s"; else echo "$((($1 + 30) / 60)) min"; fi
}

# per_mille LINE COUNT TWENTIETHS...: how much of the time a step that prints COUNT lines has
# had; or what apt says in LINE
per_mille() {
	local line=$1 count=$2 k before=0 part
	shift 2
	if [[ $line =~ ^(dl|pm)status:.*:([0-9]+)\.([0-9])[0-9]*: ]]; then
		echo $((BASH_REMATCH[2] * 10 + BASH_REMATCH[3]))
		return
	fi
	for ((k = 1; k <= $#; k++)); do
		if ((count <= ${!k})); then
			part=$((k * 50 - 50 + (${!k} > before ? 50 * (count - before) / (${!k} - before) : 0)))
			echo $((part < 1000 ? part : 999))
			return
		fi
		before=${!k}
	done
	echo $(($# ? 999 : 0))
}

# remaining AT NOW GONE BASE: seconds, if GONE per mille of the time had gone AT seconds after
# the beginning, and BASE then; 0 if that is too little to tell
remaining() {
	echo $(($3 >= $4 + 20 && $1 >= 10 ? $1 * (1000 - $3) / ($3 - $4) - ($2 - $1) : 0))
}

# ticker NAME LIKE FILE BEFORE: pass a command's output on as progress: on a terminal one
# line that changes, else a line a minute, so that a log shows that it lives. LIKE is the
# step's name in scripts/progress, FILE learns from a whole run. BEFORE lines of the output
# were printed by a run that was broken off; `part`: some are not to be printed at all.
ticker() {
	local line last='' count=0 status gone left at=0 base=0 most='' start=$SECONDS shown=$SECONDS every=60
	local -a expected=() times=()
	mapfile -t expected < <(twentieths "$2" "$3")
	[ -z "${expected[*]}" ] || most=" of at most ${expected[19]}"
	if [ "$4" = part ]; then
		expected=()
	else
		count=$4
		base=$(per_mille '' "$count" "${expected[@]}")
	fi
	[ -t 2 ] && every=1
	while :; do
		status=0
		read -r -t 1 line || status=$?
		if ((status == 0)); then
			count=$((count + 1)) last=$line at=$((SECONDS - start))
			times+=("$at")
		elif ((status <= 128)); then
			break
		fi
		((SECONDS - shown >= every)) || continue
		shown=$SECONDS
		gone=$(per_mille "$last" "$count" "${expected[@]}")
		left=$(remaining "$at" $((SECONDS - start)) "$gone" "$base")
		if ((gone == 0)); then
			line="$1: $(duration $((SECONDS - start))), $count lines$most"
		elif ((left > 0)); then
			line="$1: $((gone / 10)) %, $(duration "$left") left"
		else
			line="$1: $((gone / 10)) %"
		fi
		if [ -t 2 ]; then printf '\r\033[K  %s' "$line" >&2; else say "  $line"; fi
	done
	[ ! -t 2 ] || printf '\r\033[K' >&2
	[ "$4" = 0 ] && ((count >= 5)) || return 0
	for ((gone = 1, at = 0; gone <= 20; gone++)); do
		while ((at < count && times[at] * 20 <= (SECONDS - start) * gone)); do at=$((at + 1)); done
		echo "$at"
	done | xargs >"$3.new"
}

# step NAME COMMAND...: run it, its output in build/log. Not to be called in a
# condition: bash would then ignore the command's own set -e. If it fails, the
# variable hint says in one line what to do; without it the output's end is shown.
# The variables like and before are the ticker's LIKE and BEFORE.
step() {
	local name=$1 log status start=$SECONDS
	log=$build/log/${name//[ \/]/-}
	shift
	rm -f "$log.progress.new"
	set +e
	(
		set -e
		"$@"
	) </dev/null 2>&1 | tee "$log.log" | ticker "$name" "${like:-$name}" "$log.progress" "${before:-0}"
	status=${PIPESTATUS[0]}
	set -e
	if ((status)); then
		space 200 "$build"
		space 200 "$cache"
		[ -z "${hint:-}" ] || die "$name: $hint (output: $log.log)"
		tail -n 25 "$log.log" >&2
		die "$name failed; the whole output is in $log.log"
	fi
	[ ! -e "$log.progress.new" ] || mv "$log.progress.new" "$log.progress"
	say "  $name: $(duration $((SECONDS - start)))"
}

digest() { sha256sum | cut -c1-40; }

# The archive's address, as this machine's apt has it
archive() {
	local uri=${DEBIAN_ARCHIVE:-}
	# Without package lists apt does not know the label.
	# shellcheck disable=SC2016 # apt's own placeholders
	[ -n "$uri" ] || uri=$(apt-get indextargets --no-release-info --format '$(LABEL) $(REPO_URI)' |
		awk '$1 == "Debian" || $2 ~ "/debian/*$" { print $2; exit }')
	[ -n "$uri" ] || die "apt's sources name no Debian archive; run again with" \
		"DEBIAN_ARCHIVE=URI, or with KERNEL_TARBALL=FILE"
	printf '%s\n' "${uri%/}"
}

# suite_sources SUITE: source lines of a suite of Debian: those that this machine's apt knows, at
# the same address, or its main part
suite_sources() {
	local list
	# shellcheck disable=SC2016 # apt's own placeholders
	list=$(apt-get indextargets --format '$(CREATED_BY) $(REPO_URI) $(RELEASE) $(COMPONENT)' |
		awk -v suite="^$1(-|$)" '$1 == "Packages" && $3 ~ suite && $4 == "main" { print "deb", $2, $3, $4 }' | sort -u)
	printf '%s\n' "${list:-deb $(archive) $1 main}"
}

# --- the kernel tree ---------------------------------------------------------

# The user's git configuration must not change how patches come out.
kgit() { GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1 git -C "$linux" "$@"; }

# build/linux/.git/sch_bpf says what the tree was made of:
#   source   what the first commit holds   base     that commit
#   key      patches and new files         files    base plus the new files
#   pending  a checkout has begun          tip      files plus the patches
state() { sed -n "s/^$1 //p" "$linux/.git/sch_bpf" 2>/dev/null || true; }

set_state() {
	printf '%s\n' "$@" >"$linux/.git/sch_bpf.new"
	mv "$linux/.git/sch_bpf.new" "$linux/.git/sch_bpf"
}

# Folders that mirror the kernel's: what lies there is a new kernel file.
kernel_dirs=(Documentation arch block drivers fs include kernel lib mm net samples tools)

new_files() {
	git -C "$top" ls-files -co --exclude-standard -- "${kernel_dirs[@]}" | sort |
		while IFS= read -r f; do
			[ ! -f "$top/$f" ] || printf '%s\n' "$f"
		done
}

series() {
	local list=$top/patches/linux/series
	[ ! -f "$list" ] || sed '/^#/d; /^$/d' "$list"
}

file_mode() { if [ -x "$1" ]; then echo 100755; else echo 100644; fi; }

# A key of all that is put on top of the base
kernel_key() {
	local f
	{
		new_files | while IFS= read -r f; do
			printf '%s %s %s\n' "$(file_mode "$top/$f")" "$f" "$(sha256sum <"$top/$f")"
		done
		series | while IFS= read -r f; do
			[ -f "$top/patches/linux/$f" ] || die "patches/linux/series names $f, which is not there"
			printf 'patch %s\n' "$f"
			cat "$top/patches/linux/$f"
		done
	} | digest
}

# What is built from, as it is now, local edits and all
tree_key() {
	{
		kgit ls-tree HEAD | sed '/\tDocumentation$/d'
		kgit diff HEAD -- . ':!Documentation'
		kgit ls-files -o --exclude-standard | while IFS= read -r f; do
			printf '%s %s\n' "$f" "$(sha256sum <"$linux/$f")"
		done
	} | digest
}

tree_dirty() { [ -n "$(kgit status --porcelain)" ] || [ "$(kgit rev-parse HEAD)" != "$(state tip)" ]; }

# commit_tree TREE PARENT|'' <MESSAGE: the same input gives the same commit
commit_tree() {
	GIT_AUTHOR_NAME=${author_name:-sch_bpf} GIT_AUTHOR_EMAIL=${author_email:-sch_bpf@localhost} \
	GIT_AUTHOR_DATE=${author_date:-2026-01-01T00:00:00Z} GIT_COMMITTER_NAME=sch_bpf \
	GIT_COMMITTER_EMAIL=sch_bpf@localhost GIT_COMMITTER_DATE=2026-01-01T00:00:00Z \
		kgit commit-tree "$1" ${2:+-p "$2"}
}

# --- building ----------------------------------------------------------------

# Nothing of where and when goes into the objects, so a new clone hits the cache. What the
# preprocessor reads is a third of a kernel's build: ccache takes the compiler's word for
# which files those are (depend), and does not run it before to see what it makes of them.
build_environment() {
	export CCACHE_DIR=$cache/ccache CCACHE_BASEDIR=$top CCACHE_NOHASHDIR=1 CCACHE_SLOPPINESS=time_macros \
		CCACHE_DEPEND=1
	export KBUILD_BUILD_TIMESTAMP='2026-01-01' KBUILD_BUILD_USER=sch_bpf KBUILD_BUILD_HOST=localhost
	unset MAKEFLAGS MFLAGS MAKELEVEL
}

# done_already FILE KEY
done_already() { [ "$(cat "$1" 2>/dev/null)" = "$2" ]; }

# merged OUT FRAGMENT...: tinyconfig and the fragments
merged() {
	local out=$1
	shift
	mkdir -p "$out"
	rm -f "$out/.config"
	make -s -C "$linux" O="$out" tinyconfig
	(cd "$linux" && scripts/kconfig/merge_config.sh -m -O "$out" "$out/.config" "$@" >/dev/null)
	make -s -C "$linux" O="$out" olddefconfig
}

# as_asked OUT FRAGMENT...: is each line of theirs in the configuration?
as_asked() {
	local out=$1 wrong
	shift
	wrong=$(cat "$out/.config" <(echo '===') "$@" | awk '
		/^===$/ { fragment = 1 }
		/^# CONFIG_[A-Za-z0-9_]+ is not set/ { name = $2; value = "n" }
		/^CONFIG_[A-Za-z0-9_]+=/ { name = $0; sub(/=.*/, "", name); value = substr($0, length(name) + 2) }
		!/CONFIG_/ { next }
		fragment { want[name] = value; next }
		{ have[name] = value }
		END {
			for (name in want) {
				got = name in have ? have[name] : "n"
				if (got != want[name])
					print name ": asked for " want[name] ", got " got
			}
		}' | sort)
	[ -n "$wrong" ] || return 0
	printf 'kernel configuration is not as %s ask:\n%s\n' "${*#"$top/"}" "$wrong"
	[ -z "$(series)" ] # without the patches some symbols do not exist
}

# configure OUT FRAGMENT...: the two
configure() {
	merged "$@"
	as_asked "$@"
}
