"""Ray, storage and failures around `textscanner`. Importing it quiets TensorFlow and Ray before they load."""

from cluster.logs import quiet

quiet()
