// Package config holds the settings of walpost. One struct, Config, is the only definition of a
// setting: its flag, its environment variable, its key in the YAML file, its default and its help
// all come from the field's tags.
//
// What holds:
//   - A flag beats an environment variable, which beats the file, which beats the default.
//   - Every fault is found and listed in one go, each with the flag, the variable and the file key
//     it can be mended at.
//   - A key that the file should not have is a fault, never ignored.
//   - Secrets come from files and the environment, never from the command line, where every user of
//     the machine could read them. No fault repeats a secret.
//   - Nothing here opens a connection.
package config
