"""Ray, storage and failures around `textscanner`. Importing it tells TensorFlow and Ray to be quiet, before either loads."""

from cluster.logs import quiet

quiet()
