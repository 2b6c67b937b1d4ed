# SPDX-License-Identifier: GPL-2.0
# bash completion of the qdiscs bpf and bpf_mq, on top of what the distribution has for tc

_tc_bpf()
{
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} at word words i

	# As it would have been loaded without this
	if ! declare -F _tc >/dev/null; then
		_completion_loader tc
		complete -F _tc_bpf tc
		declare -F _tc >/dev/null || return 0
	fi
	[[ $QDISC_KIND == *' bpf '* ]] || QDISC_KIND+=' bpf bpf_mq '

	for ((i = 1; i < COMP_CWORD; i++)); do
		word=${COMP_WORDS[i]}
		[[ $word != @(bpf|bpf_mq) || ${COMP_WORDS[*]:1:i} != *' dev '* ]] || { at=$i; break; }
	done
	if [[ -z $at || " ${COMP_WORDS[*]:1:at} " != *' qdisc '* ]]; then
		_tc "$@"
		return
	fi

	COMPREPLY=()
	case $prev in
		obj|object-file)
			_filedir
			COMPREPLY+=( $( compgen -W "$(
				ls /usr/{local/,}lib/sch-bpf 2>/dev/null | sed -n 's/\.bpf\.o$//p' )" -- "$cur" ) )
			;;
		enqueue|dequeue)
			COMPREPLY=( $( compgen -W 'section object-pinned' -- "$cur" ) )
			;;
		object-pinned|pin)
			COMPREPLY=( $( compgen -G "/sys/fs/bpf/*" -- "$cur" ) )
			compopt -o nospace
			;;
		set|limit|horizon|patience|section)
			;;
		*)
			words=" ${COMP_WORDS[*]:at} "
			for word in obj enqueue dequeue limit horizon patience flush pin verbose; do
				[[ $words == *" $word "* ]] || COMPREPLY+=( $( compgen -W "$word" -- "$cur" ) )
			done
			COMPREPLY+=( $( compgen -W 'set' -- "$cur" ) )
			;;
	esac
}

complete -F _tc_bpf tc
