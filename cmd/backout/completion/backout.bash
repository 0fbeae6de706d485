# Completes backout's commands, flags and values in bash.
_backout() {
    local cur=${COMP_WORDS[COMP_CWORD]} offer
    # bash splits --flag=value into three words.
    if [[ $cur == "=" ]]; then cur=; fi
    COMPREPLY=()
    while IFS= read -r offer; do
        if [[ $offer == "$cur"* ]]; then COMPREPLY+=("$offer"); fi
    done < <("${COMP_WORDS[0]/#\~\//$HOME/}" --completion-bash "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -o default -F _backout backout
