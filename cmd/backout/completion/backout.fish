# Completes backout's commands, flags and values in fish.
function __backout_complete
    set -l words (commandline -opc)
    set -l cur "$(commandline -ct)"
    set -l prefix ""
    if string match -qr -- '^--[^=]+=' $cur
        set prefix (string replace -r -- '=.*$' '=' $cur)
    end
    set -l offers ($words[1] --completion-bash $words[2..-1] $cur 2>/dev/null)
    if test (count $offers) -gt 0
        printf '%s\n' $prefix$offers
    else
        __fish_complete_path $cur
    end
end
complete -c backout -f -a '(__backout_complete)'
