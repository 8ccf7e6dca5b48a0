"""python -m ldm.weights convert sd-v1-4.ckpt sd-v1-4.safetensors"""

import sys

from ldm.weights.conversion import main

sys.exit(main())
