# For the scripts beside it (bash): hide what the host has at a path, in a mount namespace of its own.

# Mount an empty tmpfs on $1, also where the host has no such directory and is not to get one:
# then the parent becomes a tmpfs too, into which all that the real one holds is mounted.
private() {
    local parent real shown
    if [ ! -d "$1" ]; then
        parent=$(dirname "$1")
        mount --rbind "$parent" /mnt
        mount -t tmpfs -o mode=755 tmpfs "$parent"
        for real in /mnt/* /mnt/.[!.]*; do
            shown=$parent/${real#/mnt/}
            if [ -L "$real" ]; then
                cp -P "$real" "$shown"
            elif [ -d "$real" ]; then
                mkdir -p "$shown" # libmount makes /run/mount by itself
                mount --rbind "$real" "$shown"
            elif [ -e "$real" ]; then
                : >"$shown"
                mount --bind "$real" "$shown"
            fi
        done
        umount --lazy /mnt
        mkdir "$1"
    fi
    mount -t tmpfs -o mode=755 tmpfs "$1"
}
