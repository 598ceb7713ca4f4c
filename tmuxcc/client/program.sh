# The wrapper under which tmuxcc starts a program in a pane: sh -c THIS tmuxcc NONCE PROGRAM [ARGUMENT]...
#
# tmux drops what a program writes just before its end, so this one stays a little longer: it runs
# the program, writes a mark that terminals ignore, ESC ] 6973 ; NONCE ; CODE ; SIGNAL BEL, behind
# its last byte, again each second for those that were not there to see it, and waits for SIGTERM
# (or five seconds) before it ends in the same way. Meanwhile the terminal, its signals and its
# foreground group are the program's. It runs in dash, bash and busybox. Lines that are only comments are not sent.
#
# Nothing is assigned before the program is forked: its environment may hold a variable of any name.

# The shell's own messages go into a pipe it reads back: only they tell death by signal n from exit 128+n.
exec 3>&2 4<<E

E
if [ -p /proc/self/fd/4 ]; then exec 2>/proc/self/fd/4; else exec 2>/dev/null; fi
# The terminal is gone with the wrapper, the leader of its session.
orphaned() { [ -r /dev/tty ] && ! true </dev/tty; }
# Job control: the program gets a group of its own, and the terminal.
set -m 2>/dev/null
case $- in
# Stops itself until fg has given it the terminal. Other than STOP, TTIN can't stop what was
# orphaned just before, which nobody would continue; that finds no terminal, and ends. Bash may
# ignore TTIN, and break loops after TSTP: there the look before STOP has to do.
*m*) {
	orphaned && exit
	if [ -n "${BASH_VERSION-}" ]; then kill -s STOP 0; else kill -s TTIN 0; fi
	orphaned && exit
	shift; exec "$@" 2>&3 3>&- 4<&-
} & ;;
# No terminal.
*) (shift; exec "$@" 2>&3 3>&- 4<&-) ;;
esac
rc=$? P=${!-} int= sig= tty=2 LC_ALL=C PATH=$PATH:/usr/bin:/bin
# Dash raises SIGINT in itself if the program died of it.
trap int=1 INT
# For a Ctrl-\ just after the program's end.
trap : QUIT
# Said := what the shell has said and says of the job.
look() {
	if [ -p /proc/self/fd/4 ]; then
		jobs >&2; echo . >&2; said=
		while read -r line <&4 && [ "$line" != . ]; do said=$said$line; done
	else said=$(jobs)unknown; fi
}
# Continues the program whenever it stops, as tmux does.
run() {
	while int=; fg >/dev/null 2>&$tty; rc=$?; look; do case $said in *Stopped*|*Running*) ;; *) break ;; esac; done
	# bash breaks loops on SIGTSTP.
	case $said in *Stopped*) run ;; esac
}
mark() { printf '\033]6973;%s;%s;%s\007' "$1" "$code" "$sig" >&3; }
end() {
	trap '' INT QUIT; trap - EXIT
	# bash, see below.
	case $said in *Stopped*) rc=130; look ;; esac
	set +m
	# Also while it was stopped, behind the back of fg.
	case $said in *Killed*) rc=137 ;; esac
	# What the program left in its group: as the kernel does at a leader's end.
	[ -z "$P" ] || kill -s HUP -- "-$P"
	[ $rc -le 128 ] || case $rc$int$said in
	# bash.
	*Done*|*Exit*) ;;
	# Dash says nothing of INT and PIPE.
	1301|141) sig=$((rc - 128)) ;;
	$rc|${rc}1) ;;
	*unknown) kill -l $((rc - 128)) >/dev/null && sig=$((rc - 128)) ;;
	*) sig=$((rc - 128)) ;;
	esac
	code=$rc; [ -z "$sig" ] || code=
	# SIGTERM: go.
	left=5; trap 'left=0; kill -9 $!' TERM
	# At once, but a Ctrl-C now would flush the mark, and a Ctrl-S holds up whoever writes it, for ever.
	mark "$1" &
	# What is stopped starts again with this. As long as somebody waits to write, only without drain
	# (GNU, from 8.29 on), which would wait for that.
	stty -drain -echo -isig -ixon <&3 || { kill $!; stty -echo -isig -ixon <&3; }
	while [ $left -gt 0 ]; do
		sleep 1 &
		# SIGTERM may have come before that.
		[ $left -gt 0 ] || kill -9 $!
		mark "$1"
		wait $!
		left=$((left - 1))
	done
	trap - TERM
	[ -z "$sig" ] || { ulimit -c 0; trap - $sig; kill -s $sig $$; }
	exit $rc
}
said=Stopped
if [ -n "${BASH_VERSION-}" ]; then
	# bash knows the terminal by fd 2 only.
	tty=3
	# And leaves fg and the script if the program died of SIGINT.
	trap '[ $? != 1 ] || end "$1"' EXIT
fi
if [ -n "$P" ]; then run; else look; fi
end "$1"
