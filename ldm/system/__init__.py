"""Files, devices and the command line, for every script and room.

atomic         files and folders written whole or not at all; hashes that name them
cli            the command line: options, one-line errors, seconds of each part
downloads      what lies in the place of a file whose download went wrong
devices        where to compute: the device, the precision, the processes of torchrun
"""
