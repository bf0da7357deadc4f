# fish completion of doorbell; in ~/.config/fish/config.fish: doorbell completion fish | source
function __doorbell_complete
    set -l words (commandline -opc) (commandline -ct)
    set -l lines ($words[1] __complete -- $words[2..-1] 2>/dev/null)
    test (count $lines) -gt 0; or return
    if test (count $lines) -gt 1
        printf '%s\n' $lines[1..-2]
    end
    if test "$lines[-1]" = ':files'
        __fish_complete_path (commandline -ct)
    end
end
complete -c doorbell -f -a '(__doorbell_complete)'
