# `cmake --install` gives a relocatable folder: bin/ and lib/, found through $ORIGIN.
install(TARGETS sluice RUNTIME DESTINATION bin)
